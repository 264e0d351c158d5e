"""What hvac takes for a session of the library `requests`: its requests go out by the client that core lends, on the event loop.

Warning: for threads alone. hvac blocks; on the loop itself it would wait for ever.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx2

from hansa_sdk import SecretRefused, SecretUnavailable

ANSWER_SECONDS = 30.0
PASSING = {
    412: "asks to repeat: it has not caught up yet",
    429: "asks for fewer requests",
    472: "is a standby that does not serve",
    473: "is a standby that does not serve",
    500: "has an error of its own",
    502: "can't reach what stands behind it",
    503: "is sealed or in maintenance",
    504: "can't reach what stands behind it",
}


class Answer:
    """As much of `requests.Response` as hvac looks at."""

    def __init__(self, found: httpx2.Response) -> None:
        self.status_code = found.status_code
        self.ok = found.status_code < 400
        self.text = found.text
        self.headers: Mapping[str, str] = found.headers
        self._found = found

    def json(self) -> Any:
        return self._found.json()


class Door:
    """As much of `requests.Session` as hvac uses. Raises `SecretUnavailable` for what may pass, before hvac makes its own of it."""

    verify = None
    cert = None
    proxies = None

    def __init__(self, http: httpx2.AsyncClient, loop: asyncio.AbstractEventLoop) -> None:
        self._http = http
        self._loop = loop

    def request(self, method: str, url: str, *, headers: Mapping[str, str], params: Any = None, json: Any = None, **_: Any) -> Answer:
        """Send one request from a thread and wait for its answer. What hvac says of certificates, proxies and redirects is not asked."""
        sending = self._http.request(method.upper(), url, headers=dict(headers), params=params, json=json)
        answer = asyncio.run_coroutine_threadsafe(_judged(sending), self._loop).result(ANSWER_SECONDS)
        if answer.status_code in PASSING:
            raise SecretUnavailable(f"Vault {PASSING[answer.status_code]} ({answer.status_code})", retry_after=_retry_after(answer))
        return answer

    def close(self) -> None:
        """The client is not ours."""


async def _judged(sending: Any) -> Answer:
    try:
        return Answer(await sending)
    except (httpx2.TransportError, httpx2.DecodingError) as error:
        raise SecretUnavailable(f"Vault can't be reached ({type(error).__name__})", hint="HANSA_SECRETS_VAULT_URL names it.") from None
    except httpx2.RequestError as error:
        raise SecretRefused(f"Vault can't be asked: {error}", hint="A private address stands in HANSA_SECRETS_ALLOW.") from None


def _retry_after(answer: Answer) -> float | None:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else None
