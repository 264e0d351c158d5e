"""An approval in words: what is asked, by whom, and why a person is asked at all."""

from typing import Any

from hansa.cli.approvals import described


def approval(**subject: Any) -> dict[str, Any]:
    return {
        "kind": "tool",
        "run_id": "1",
        "step": "2",
        "state": "approved",
        "subject": {"agent": "a", "name": "pay", "arguments": {}, **subject},
    }


def test_why_a_person_is_asked_is_said_where_there_is_a_reason() -> None:
    lines = described(approval(because="the run has read untrusted text: http_get at step 1"))
    assert "why a person: the run has read untrusted text: http_get at step 1" in lines
    assert not [line for line in described(approval()) if line.startswith("why")]
