"""A client of MCP over streamable HTTP, for tools alone: `tools/list` and `tools/call`, in both eras of the protocol.

Revision 2026-07-28 is stateless and tried first; a server that declines it is greeted as 2025-11-25 asks (`initialize`, a session).
Must not know runs or agents. Warning: a call is sent a second time only where the first one can't have been carried out; after a
broken answer nobody knows, so it is `ToolServerUnavailable` and the caller decides by the tool's effect.
"""

import asyncio
import importlib.metadata
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec

from hansa.egress.client import HttpAnswer, HttpClient, RequestFailed, RequestTimedOut
from hansa.egress.refusal import EgressRefused
from hansa.tools.event_stream import messages
from hansa.tools.failures import ToolServerRefused, ToolServerUnavailable, ToolServerUnreadable

STATELESS = "2026-07-28"
WITH_SESSION = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""The newest is offered; a server may choose an older one."""

MAX_ANSWER_BYTES = 4 * 1024 * 1024
MAX_PAGES = 64
MAX_TOOLS = 256
KEY_FIELD = "dev.hansa/idempotency-key"
"""Where a call's idempotency key stands in `_meta`; it is sent as the header Idempotency-Key, too."""

_CLOSE_SECONDS = 2.0
_SESSION_ID = re.compile(r"[!-~]{1,1024}")
_REFUSING = frozenset({401, 403})
_PASSING = frozenset({408, 425, 429})
_ERRORS_OF_STATELESS = frozenset({-32020, -32021, -32022})
_OTHER_VERSION = -32022
_NO_METHOD_OR_WRONG_PARAMS = frozenset({-32601, -32602})
_CLIENT = {"name": "hansa", "version": importlib.metadata.version("hansa")}


class RpcError(msgspec.Struct, frozen=True):
    """An error of JSON-RPC."""

    code: int
    message: str = ""
    data: Any = None


class _Message(msgspec.Struct, frozen=True):
    """Any message of a server; `method` only in those that are no answer."""

    id: int | str | None = None
    method: str | None = None
    result: dict[str, Any] | None = None
    error: RpcError | None = None


class _Answer(msgspec.Struct, frozen=True):
    """What came back for one request: an HTTP status, and what the body said if it was an answer."""

    status: int
    session: str = ""
    result: dict[str, Any] | None = None
    error: RpcError | None = None


class _Session(msgspec.Struct, frozen=True):
    """Agreed by `initialize`; `id` is empty when the server keeps none."""

    version: str
    id: str


class _Declined(Exception):
    """The server does not speak this era; the text says how it said so."""


class McpClient:
    """One server, as one caller sees it. Opens nothing until it is asked; `close` ends the session if there is one.

    Time is bounded by the caller; sizes are bounded here. Raises `ToolServerError`s alone.
    """

    def __init__(self, http: HttpClient, endpoint: str, *, token: str = "", protocol: str = "") -> None:
        """`protocol` is the revision that the server spoke when it was last asked; empty: not known."""
        self._http = http
        self._endpoint = endpoint
        self._host = urlsplit(endpoint).netloc
        self._token = token
        self._stateless_first = protocol not in WITH_SESSION
        self._spoken = ""
        self._session: _Session | None = None
        self._greeting = asyncio.Lock()
        self._last_id = 0

    @property
    def protocol(self) -> str:
        """The revision that worked; empty before the first answer."""
        return self._spoken

    async def list_tools(self) -> list[Any]:
        """All tools, as the server describes them."""
        tools: list[Any] = []
        cursors: set[str] = set()
        params: dict[str, Any] = {}
        for _ in range(MAX_PAGES):
            result = await self._ask("tools/list", params, {})
            page, cursor = result.get("tools"), result.get("nextCursor")
            if not isinstance(page, list):
                raise ToolServerUnreadable(f"{self._host} answered tools/list without a list of tools")
            tools.extend(cast("list[Any]", page))
            if not cursor:
                return tools
            if len(tools) > MAX_TOOLS:
                raise ToolServerUnreadable(f"{self._host} offers more than {MAX_TOOLS} tools", hint="Use a server with fewer.")
            if not isinstance(cursor, str) or cursor in cursors:
                raise ToolServerUnreadable(f"{self._host} lists its tools without an end: it gave one cursor twice")
            cursors.add(cursor)
            params = {"cursor": cursor}
        raise ToolServerUnreadable(f"{self._host} lists its tools on more than {MAX_PAGES} pages")

    async def call_tool(
        self, name: str, arguments: dict[str, Any], *, idempotency_key: str, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The result of a call. `headers` are those that the tool's schema asks for."""
        params = {"name": name, "arguments": arguments, "_meta": {KEY_FIELD: idempotency_key}}
        result = await self._ask("tools/call", params, {"Idempotency-Key": idempotency_key, "Mcp-Name": name, **(headers or {})})
        kind = result.get("resultType", "complete")
        if kind == "input_required":
            raise ToolServerRefused(f"{name} wants input from a person while it runs, which is not offered here")
        if kind != "complete":
            raise ToolServerUnreadable(f"{self._host} answered {name} with a result of an unknown type")
        return result

    async def close(self) -> None:
        """Tell the server that its session is over. What it says to that does not matter."""
        session, self._session = self._session, None
        if session is None or not session.id:
            return
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._http.delete(self._endpoint, headers=self._headers(session))
        except (RequestFailed, TimeoutError):
            return

    async def _ask(self, method: str, params: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        """Ask in the era that works; until one has, in both."""
        declined: list[str] = []
        for stateless in [self._stateless_first] if self._spoken else [self._stateless_first, not self._stateless_first]:
            try:
                speak = self._ask_stateless if stateless else self._ask_in_session
                result = await speak(method, params, headers)
            except _Declined as reason:
                declined.append(str(reason))
            else:
                self._stateless_first = stateless
                return result
        raise ToolServerRefused(
            f"{self._host} declined {method}: {'; '.join(declined)}", hint="Is this the address of an MCP server over streamable HTTP?"
        )

    async def _ask_stateless(self, method: str, params: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        meta = {
            **params.get("_meta", {}),
            "io.modelcontextprotocol/protocolVersion": STATELESS,
            "io.modelcontextprotocol/clientInfo": _CLIENT,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        sent = {"MCP-Protocol-Version": STATELESS, "Mcp-Method": method, **headers}
        answer = await self._request(method, {**params, "_meta": meta}, sent)
        if not self._spoken and self._is_older(method, answer):
            raise _Declined(f"{STATELESS}: {self._said(answer)}")
        result = self._result(method, answer)
        self._spoken = STATELESS
        return result

    def _is_older(self, method: str, answer: _Answer) -> bool:
        """Whether an answer is that of a server which does not know the stateless era; never after it may have carried a call out."""
        if answer.error is not None:
            if answer.error.code == _OTHER_VERSION:
                return any(version in WITH_SESSION for version in _supported(answer.error))
            if answer.error.code in _ERRORS_OF_STATELESS:
                return False
            if answer.error.code in _NO_METHOD_OR_WRONG_PARAMS or answer.status < 400:
                return method == "tools/list"
        if answer.status >= 500:
            return method == "tools/list"
        return answer.status >= 400 and answer.status not in _REFUSING | _PASSING

    async def _ask_in_session(self, method: str, params: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
        answer = _Answer(404)
        for _ in range(2):
            session = await self._greeted()
            answer = await self._request(method, params, {**self._headers(session), **headers})
            if answer.status != 404 or not session.id:
                break
            # The server has forgotten the session, so it has not carried out the request.
            if self._session is session:
                self._session = None
        return self._result(method, answer)

    async def _greeted(self) -> _Session:
        """The session; it is opened when there is none."""
        async with self._greeting:
            if self._session is None:
                self._session = await self._greet()
            return self._session

    async def _greet(self) -> _Session:
        offered = WITH_SESSION[0]
        answer = await self._request("initialize", {"protocolVersion": offered, "capabilities": {}, "clientInfo": _CLIENT}, {})
        if answer.status not in _REFUSING | _PASSING and (answer.error is not None or 400 <= answer.status < 500):
            raise _Declined(f"{offered}: {self._said(answer)}")
        version = self._result("initialize", answer).get("protocolVersion")
        if version not in WITH_SESSION:
            raise ToolServerRefused(
                f"{self._host} speaks MCP {str(version)[:40]!r} only; known here: {STATELESS}, {', '.join(WITH_SESSION)}"
            )
        if answer.session and not _SESSION_ID.fullmatch(answer.session):
            raise ToolServerUnreadable(f"{self._host} gave a session id that no header can carry")
        session = _Session(version, answer.session)
        told = await self._post({"jsonrpc": "2.0", "method": "notifications/initialized"}, self._headers(session))
        if told.status >= 300:
            self._result("notifications/initialized", told)
        self._spoken = version
        return session

    def _headers(self, session: _Session) -> dict[str, str]:
        headers = {"MCP-Protocol-Version": session.version, **({"Mcp-Session-Id": session.id} if session.id else {})}
        return {**headers, **({"Authorization": f"Bearer {self._token}"} if self._token else {})}

    async def _request(self, method: str, params: dict[str, Any], headers: dict[str, str]) -> _Answer:
        self._last_id += 1
        return await self._post({"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params}, headers)

    async def _post(self, message: dict[str, Any], headers: dict[str, str]) -> _Answer:
        sent = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json", **headers}
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        try:
            async with self._http.stream("POST", self._endpoint, content=msgspec.json.encode(message), headers=sent) as response:
                return await self._read(response, message.get("id"))
        except RequestTimedOut as error:
            raise ToolServerUnavailable(f"{self._host} did not answer in time") from error
        except EgressRefused as error:
            raise ToolServerRefused(error.detail, hint="HANSA_EGRESS_ALLOW lists private addresses that tool servers may be at.") from error
        except RequestFailed as error:
            raise ToolServerUnavailable(f"{self._host} is not reachable or broke off: {str(error) or type(error).__name__}") from error

    async def _read(self, response: HttpAnswer, request_id: int | None) -> _Answer:
        status = response.status_code
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        session = response.headers.get("mcp-session-id", "")
        if request_id is None:
            return _Answer(status)
        if not 200 <= status < 300:
            return _Answer(status, error=await self._error(response) if kind == "application/json" else None)
        if kind == "text/event-stream":
            async with aclosing(self._parts(response)) as parts, aclosing(messages(parts)) as arriving:
                async for data in arriving:
                    found = self._decoded(data)
                    if found.method is None:
                        return self._matched(status, session, found, request_id)
            raise ToolServerUnavailable(f"{self._host} ended its stream before the answer")
        if kind != "application/json":
            raise ToolServerUnreadable(f"{self._host} answered with {kind[:80] or 'no content type'}, which is neither JSON nor events")
        return self._matched(status, session, self._decoded(await self._body(response)), request_id)

    async def _error(self, response: HttpAnswer) -> RpcError | None:
        """The error in a body that comes with an HTTP status of failure, if it is one of JSON-RPC."""
        try:
            return self._decoded(await self._body(response)).error
        except ToolServerUnreadable:
            return None

    def _matched(self, status: int, session: str, found: _Message, request_id: int) -> _Answer:
        if found.error is not None and found.id in (None, request_id):
            return _Answer(status, session, error=found.error)
        if found.id != request_id:
            raise ToolServerUnreadable(f"{self._host} answered another request than the one it was sent")
        if found.result is None:
            raise ToolServerUnreadable(f"{self._host} answered with neither a result nor an error")
        return _Answer(status, session, result=found.result)

    async def _body(self, response: HttpAnswer) -> bytes:
        async with aclosing(self._parts(response)) as parts:
            return b"".join([part async for part in parts])

    async def _parts(self, response: HttpAnswer) -> AsyncGenerator[bytes]:
        """The body, up to the limit."""
        taken = 0
        async with aclosing(response.aiter_bytes()) as parts:
            async for part in parts:
                taken += len(part)
                if taken > MAX_ANSWER_BYTES:
                    raise ToolServerUnreadable(f"the answer of {self._host} is larger than {MAX_ANSWER_BYTES} bytes and was cut off")
                yield part

    def _decoded(self, data: bytes) -> _Message:
        try:
            return msgspec.json.decode(data, type=_Message)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise ToolServerUnreadable(f"{self._host} answered with something that is no message of JSON-RPC: {error}") from error

    def _result(self, method: str, answer: _Answer) -> dict[str, Any]:
        """The result, or the error that stands for what came instead."""
        if answer.result is not None:
            return answer.result
        said = f"{self._host} answered {method} with {self._said(answer)}"
        if answer.status in _REFUSING:
            hint = "Its credentials are not accepted." if self._token else "It wants a token: set spec.credentials.env."
            raise ToolServerRefused(said, hint=hint)
        if answer.status in _PASSING or answer.status >= 500:
            raise ToolServerUnavailable(said)
        if 300 <= answer.status < 400:
            raise ToolServerRefused(f"{said}, a redirect, which is not followed", hint="Write the address it leads to as the endpoint.")
        raise ToolServerRefused(said)

    def _said(self, answer: _Answer) -> str:
        """An answer in words, without the token should the server repeat it."""
        if answer.error is None:
            return f"HTTP {answer.status}"
        text = " ".join(answer.error.message.split())[:500]
        known = f" (it speaks {', '.join(_supported(answer.error))})" if answer.error.code == _OTHER_VERSION else ""
        return f"error {answer.error.code}: {text.replace(self._token, '[token]') if self._token else text}{known}"


def _supported(error: RpcError) -> list[str]:
    """The versions that a server names when it does not know ours."""
    try:
        return msgspec.convert(error.data, _Supported).supported[:16]
    except msgspec.ValidationError:
        return []


class _Supported(msgspec.Struct):
    supported: list[str]
