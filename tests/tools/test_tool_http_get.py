"""http_get through the real egress door, against a real server on loopback."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from hansa.egress.client import open_client
from hansa.egress.policy import EgressPolicy
from hansa_sdk import Effect, ToolFailed
from hansa_tools.http_get import MAX_BYTES, http_get
from tools.conftest import Context


class Site(Context, kw_only=True):
    """A context whose client may reach one server, and what that server answers with."""

    url: str
    answers: dict[str, bytes]
    heads: list[str]


def _answer(body: bytes, media: str, status: str = "200 OK", extra: str = "") -> bytes:
    typed = f"Content-Type: {media}\r\n" if media else ""
    return f"HTTP/1.1 {status}\r\n{typed}{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[Site]:
    answers: dict[str, bytes] = {}
    heads: list[str] = []
    serving: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode("latin-1"):
                heads.append(head)
                writer.write(answers[head.split(" ")[1]])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    async with server:
        async with open_client(EgressPolicy(allow=(f"127.0.0.1:{port}",), max_redirects=1)) as client:
            yield Site(workspace=tmp_path, http=client, url=f"http://127.0.0.1:{port}", answers=answers, heads=heads)
        await asyncio.gather(*filter(None, serving))


async def test_a_page_is_fetched(site: Site) -> None:
    site.answers["/a"] = _answer("Grüße".encode(), "text/html; charset=utf-8")
    assert await site.run(http_get, url=f"{site.url}/a") == {
        "status": 200,
        "url": f"{site.url}/a",
        "content_type": "text/html; charset=utf-8",
        "text": "Grüße",
        "truncated": False,
    }
    assert http_get.effect is Effect.READ


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "204 No Content"])
async def test_the_status_is_reported_whatever_it_is(site: Site, status: str) -> None:
    site.answers["/"] = _answer(b"" if status.startswith("204") else b"{}", "application/problem+json", status)
    assert (await site.run(http_get, url=f"{site.url}/"))["status"] == int(status[:3])


@pytest.mark.parametrize(
    ("body", "media", "text"),
    [
        (b"caf\xe9", "text/plain; charset=iso-8859-1", "café"),
        (b"caf\xc3\xa9", "text/plain", "café"),
        (b"caf\xc3\xa9", "text/plain; charset=no-such-charset", "café"),
        (b"abc", "text/plain; charset=hex", "abc"),
        (b"abc", "text/plain; charset=undefined", "abc"),
        (b"plain", "", "plain"),
        (b"<a/>", "image/svg+xml", "<a/>"),
        (b"\xff", "text/plain", "\ufffd"),
    ],
)
async def test_text_is_decoded_as_well_as_it_can_be(site: Site, body: bytes, media: str, text: str) -> None:
    site.answers["/"] = _answer(body, media)
    assert (await site.run(http_get, url=f"{site.url}/"))["text"] == text


async def test_a_long_page_is_cut_between_characters(site: Site) -> None:
    site.answers["/"] = _answer("€".encode() * MAX_BYTES, "text/plain")
    answer = await site.run(http_get, url=f"{site.url}/")
    assert answer["truncated"] is True
    assert answer["text"] == "€" * (MAX_BYTES // 3)


@pytest.mark.parametrize(
    ("body", "media"), [(b"GIF89a", "image/gif"), (b"zip", "application/octet-stream"), (b"a\0b", "text/plain"), (b"\0", "")]
)
async def test_binary_answers_are_refused(site: Site, body: bytes, media: str) -> None:
    site.answers["/"] = _answer(body, media)
    with pytest.raises(ToolFailed, match="is not text"):
        await site.run(http_get, url=f"{site.url}/")


async def test_a_redirect_is_followed_by_the_policy_and_judged(site: Site) -> None:
    site.answers |= {
        "/1": _answer(b"", "", "302 Found", "Location: /2\r\n"),
        "/2": _answer(b"there", "text/plain"),
        "/meta": _answer(b"", "", "302 Found", "Location: http://169.254.169.254/\r\n"),
    }
    answer = await site.run(http_get, url=f"{site.url}/1")
    assert (answer["text"], answer["url"]) == ("there", f"{site.url}/2")
    with pytest.raises(ToolFailed, match=r"169\.254\.169\.254"):
        await site.run(http_get, url=f"{site.url}/meta")


async def test_a_redirect_that_is_not_followed_says_where_to(site: Site) -> None:
    site.answers["/"] = _answer(b"", "", "302 Found", "Location: /2\r\n")
    async with open_client(EgressPolicy(allow=(site.url.removeprefix("http://"),))) as client:
        site.http = client
        answer = await site.run(http_get, url=f"{site.url}/")
    assert (answer["status"], answer["location"]) == (302, "/2")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/",
        "http://169.254.169.254/latest/",
        "https://localhost/",
        "file:///etc/passwd",
        "not a url",
        "https://",
        "http://[::1",
    ],
)
async def test_where_the_door_stays_shut_the_model_is_told_why(site: Site, url: str) -> None:
    with pytest.raises(ToolFailed, match=r"GET failed: .*refused"):
        await site.run(http_get, url=url)
    assert site.heads == []


async def test_a_server_that_breaks_off_is_a_failure(site: Site) -> None:
    site.answers["/"] = b"HTTP/1.1 200 OK\r\nContent-Length: nonsense\r\n\r\n"
    with pytest.raises(ToolFailed, match="GET failed"):
        await site.run(http_get, url=f"{site.url}/")
