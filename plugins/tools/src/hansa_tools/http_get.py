"""The tool `http_get`: the text behind a URL. The client of the context judges where it may go; this file must not open its own."""

from typing import Annotated

import httpx2
from msgspec import Meta

from hansa_sdk import ToolContext, ToolFailed, tool

MAX_BYTES = 64 * 1024
_TEXTS = ("json", "xml", "javascript", "ecmascript", "yaml", "www-form-urlencoded", "graphql", "toml", "ndjson")

Url = Annotated[str, Meta(min_length=1, max_length=2048, description="An absolute URL, such as `https://example.com/page`.")]


@tool(effect="read", timeout=30.0, untrusted=True)
async def http_get(context: ToolContext, *, url: Url) -> dict[str, str | int | bool]:
    """Fetch a page or an API answer as text, 64 KiB at most. The status is reported, whatever it is."""
    try:
        async with context.http.stream(
            "GET", url, headers={"accept": "text/*, application/json, application/xml;q=0.9, */*;q=0.1"}
        ) as response:
            data, truncated = await _beginning(response)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ToolFailed(f"GET failed: {str(error) or type(error).__name__}", hint=str(getattr(error, "hint", ""))) from error
    media = response.headers.get("content-type", "")
    if not _is_text(media) or b"\0" in data:
        shown = media.split(";")[0].strip()[:80] or "binary data"
        raise ToolFailed(f"the answer (status {response.status_code}) is {shown}, which is not text")
    answer: dict[str, str | int | bool] = {
        "status": response.status_code,
        "url": str(response.url),
        "content_type": media[:200],
        "text": _decoded(data, response.charset_encoding, truncated=truncated),
        "truncated": truncated,
    }
    if "location" in response.headers:
        answer["location"] = response.headers["location"][:2048]
    return answer


async def _beginning(response: httpx2.Response) -> tuple[bytes, bool]:
    data = bytearray()
    async for part in response.aiter_bytes():
        data += part
        if len(data) > MAX_BYTES:
            return bytes(data[:MAX_BYTES]), True
    return bytes(data), False


def _is_text(media: str) -> bool:
    kind = media.split(";")[0].strip().lower()
    main, _, sub = kind.partition("/")
    format_of = sub.rsplit("+", 1)[-1].removeprefix("x-")
    return not kind or main == "text" or ((main == "application" or "+" in sub) and format_of in _TEXTS)


def _decoded(data: bytes, charset: str | None, *, truncated: bool) -> str:
    try:
        text = data.decode(charset or "utf-8", errors="replace")
    # The charset is the server's word: it may be unknown, or a codec that makes no text.
    except (LookupError, UnicodeError):
        text = data.decode("utf-8", errors="replace")
    # The cut may have gone through a character.
    return text.rstrip("\ufffd") if truncated else text
