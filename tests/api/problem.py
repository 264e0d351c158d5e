"""What every error answer has."""

from typing import Any

import httpx2

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "retryable", "trace_id", "request_id"}


def problem(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an error, which must be a whole problem of this status and code."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found.keys() >= MEMBERS, found
    assert (found["status"], found["code"], found["type"]) == (status, code, f"urn:hansa:error:{code}")
    assert found["instance"] == answer.request.url.path
    return found
