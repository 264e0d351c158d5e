"""A Git server on loopback: `git http-backend`, the program that serves Git over HTTP, behind a server of Python that can misbehave."""

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast


class GitServer(ThreadingHTTPServer):
    """Serves every repository below a folder as /NAME/.git, and counts what it is asked. Faults are switched on by its fields."""

    daemon_threads = True

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), _Handler)
        self.folder = folder
        self.requests: list[tuple[str, str]] = []
        """Method and path of each request."""
        self.credentials: list[str] = []
        """What each request showed as Authorization, decoded; empty: nothing."""
        self.sent = 0
        self.wanted = ""
        """`user:password` without which it answers 401."""
        self.status = 0
        """Answer all with this."""
        self.redirect = ""
        """Answer all with a redirect to this place, the path added."""
        self.hang = threading.Event()
        """While set, no answer comes until it is cleared, or `release` is set."""
        self.release = threading.Event()
        self.keep_bytes = -1
        """Break off after so many bytes of a pack's answer, -1: never."""
        self.refs_answer = b""
        """Answer a question for refs with these bytes, as a web page if they begin like one."""
        self.pack_answer = b""
        """Answer a question for objects with these bytes."""

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is none of our business."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def owner(self) -> GitServer:
        """The server that has the request."""
        return cast(GitServer, self.server)

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers.get("content-length", 0))))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is logged."""

    def _serve(self, body: bytes) -> None:
        server = self.owner
        server.requests.append((self.command, self.path))
        shown = self.headers.get("authorization", "").removeprefix("Basic ")
        server.credentials.append(base64.b64decode(shown).decode() if shown else "")
        if server.hang.is_set():
            server.release.wait(30)
            return
        if server.redirect:
            self._answer(302, b"", "text/plain", location=server.redirect + self.path)
        elif server.status:
            self._answer(server.status, b"no", "text/plain")
        elif server.wanted and server.credentials[-1] != server.wanted:
            self._answer(401, b"who?", "text/plain")
        elif server.refs_answer and "info/refs" in self.path:
            page = server.refs_answer.startswith(b"<html>")
            self._answer(200, server.refs_answer, "text/html" if page else "application/x-git-upload-pack-advertisement")
        elif server.pack_answer and self.command == "POST" and b"command=ls-refs" not in body:
            self._answer(200, server.pack_answer, "application/x-git-upload-pack-result")
        else:
            self._backend(body)

    def _backend(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        environ = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.owner.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_GIT_PROTOCOL": self.headers.get("git-protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, env=environ, capture_output=True, check=False)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        status = int(headers.pop("Status", "200").split()[0])
        cut = self.command == "POST" and self.owner.keep_bytes >= 0 and b"command=fetch" in body
        self._answer(status, answer, headers.get("Content-Type", "text/plain"), cut=self.owner.keep_bytes if cut else None)

    def _answer(self, status: int, body: bytes, kind: str, *, cut: int | None = None, location: str = "") -> None:
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(body)), "location": location}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.owner.sent += len(body)
        self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True


@contextmanager
def serving(folder: Path, host: str = "127.0.0.1") -> Iterator[GitServer]:
    """Serve the repositories below a folder."""
    with GitServer(folder, host) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()
            thread.join()
