"""A real HTTP server that says what a test tells it to say, and breaks off where the test wants it to.

It speaks the API's wire format; what it stands for is a server that misbehaves, which a good one can't be asked to do.
"""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit


class Request(NamedTuple):
    """What came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class Reply(NamedTuple):
    """What goes out. `cut` closes the connection in the middle of it; `hold` keeps it open until the server ends."""

    status: int = 200
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    kind: str = "application/json"
    cut: bool = False
    hold: bool = False


Answer = Callable[[Request], Reply]


def as_json(value: Any, status: int = 200, *headers: tuple[str, str]) -> Reply:
    return Reply(status, json.dumps(value), headers)


def problem(status: int, code: str, detail: str, *headers: tuple[str, str], **more: Any) -> Reply:
    body = {"type": "about:blank", "title": code, "status": status, "code": code, "detail": detail, **more}
    return Reply(status, json.dumps(body), headers, "application/problem+json")


def page(*entries: Any, after: str | None = None) -> Reply:
    return as_json({"data": list(entries), "has_more": after is not None, "next": after})


def events(*parts: str, cut: bool = False, hold: bool = False) -> Reply:
    return Reply(200, "".join(parts), (), "text/event-stream", cut, hold)


def event(seq: int, kind: str, data: Any = None, *, run: str = "run-1", step: str | None = None) -> str:
    at = "2026-01-02T03:04:05Z"
    body: dict[str, Any] = {"seq": seq, "session_id": "session-1", "run_id": run, "type": kind, "step": step, "data": data or {}, "at": at}
    return f"id: {seq}\nevent: {kind}\ndata: {json.dumps(body)}\n\n"


def delta(text: str, *, step: str = "1", run: str = "run-1", **more: Any) -> str:
    return f"event: delta\ndata: {json.dumps({'run_id': run, 'step': step, 'text': text, **more})}\n\n"


def reset(*, step: str = "1", run: str = "run-1") -> str:
    return f"event: delta.reset\ndata: {json.dumps({'run_id': run, 'step': step})}\n\n"


def run(state: str = "completed", **more: Any) -> dict[str, Any]:
    return {
        "id": "run-1",
        "session_id": "session-1",
        "agent": "echo",
        "revision": 1,
        "state": state,
        "input": "hi",
        "output": None,
        "error": None,
        "usage": {"input_tokens": 3, "output_tokens": 5},
        "epoch": 1,
        "created_at": "2026-01-02T03:04:05Z",
        "started_at": None,
        "finished_at": None,
        **more,
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    """Connections that wait to be taken: with the default of 5, of forty at once some were refused on a busy machine."""


class ScriptedServer:
    """Answers by `METHOD path`: with each of the answers in turn, and with the last one ever after."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Request] = []
        self._answers: dict[str, list[Reply | Answer]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._server = _Server(("127.0.0.1", port), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def on(self, route: str, *answers: Reply | Answer) -> Self:
        self._answers[route] = list(answers)
        return self

    def seen(self, route: str) -> list[Request]:
        return [request for request in self.requests if f"{request.method} {request.path}" == route]

    def stop(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _answer(self, request: Request) -> Reply:
        route = f"{request.method} {request.path}"
        with self._lock:
            self.requests.append(request)
            answers = self._answers.get(route, [problem(404, "not_found", f"there is no {route}")])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return answer if isinstance(answer, Reply) else answer(request)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        ours = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *_: object) -> None:
                """Quiet."""

            def handle_one_request(self) -> None:
                with suppress(ConnectionError):
                    super().handle_one_request()

            def _serve(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                parts = urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                ours._reply(self, Request(self.command, parts.path, dict(parse_qsl(parts.query)), headers, body))

            do_GET = do_POST = do_DELETE = _serve

        return Handler

    def _reply(self, handler: BaseHTTPRequestHandler, request: Request) -> None:
        reply = self._answer(request)
        handler.send_response(reply.status)
        handler.send_header("content-type", reply.kind)
        for name, value in reply.headers:
            handler.send_header(name, value)
        body = reply.body.encode()
        streamed = reply.cut or reply.hold or reply.kind == "text/event-stream"
        if not streamed:
            handler.send_header("content-length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
            return
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        for chunk in _pieces(body):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        if reply.hold:
            self._ended.wait(30)
        if reply.cut or reply.hold:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        handler.wfile.write(b"0\r\n\r\n")


def _pieces(body: bytes) -> Iterator[bytes]:
    """Pieces that fall apart anywhere, also within a character and a line."""
    for start in range(0, len(body), 37):
        yield body[start : start + 37]


@contextmanager
def refused_port() -> Iterator[int]:
    """A port on which nobody listens, and which nobody else is given."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])
