"""The connection to an OpenAI-compatible endpoint: one streamed call per completion over the lent HTTP client.

No vendor SDK: the protocol is small, and servers that only resemble it need more tolerance than a vendor's types have.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import msgspec

from hansa_openai.answer import Answer, AnswerBroken, Chunk
from hansa_openai.faults import status_fault, stream_fault
from hansa_openai.request import encode_request
from hansa_openai.sse import EventDecoder
from hansa_sdk import (
    LLMProvider,
    LLMRequest,
    LLMResponse,
    ProviderConfig,
    ProviderRefused,
    ProviderServices,
    ProviderUnavailable,
    TextSink,
)
from hansa_sdk.wire import endpoint_url, quoted

_OPENAI = "https://api.openai.com/v1"
_CONNECT_SECONDS = 10.0
_DRAIN_SECONDS = 0.5
_NEVER_ASKED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
"""Faults after which the provider has seen nothing of the request."""
_SLACK_BYTES = 64 * 1024
_ANSWER_BYTES_PER_TOKEN = 64
_WIRE_BYTES_PER_TOKEN = 2048
"""A chunk carries one token in some 250 bytes of envelope; log probabilities and padding can make that a kilobyte."""
_ERROR_BYTES = 64 * 1024


@asynccontextmanager
async def connect(config: ProviderConfig, services: ProviderServices) -> AsyncIterator[LLMProvider]:
    """Open the provider. Raises `ProviderRefused` when the configuration can't work."""
    yield OpenAIProvider(config, services.http, _chat_url(config))


def _chat_url(config: ProviderConfig) -> httpx2.URL:
    endpoint = config.endpoint or (_OPENAI if config.credential else None)
    if endpoint is None:
        raise ProviderRefused(
            f"provider {config.name!r} has neither an endpoint nor a credential",
            hint="Give it an endpoint such as http://localhost:11434/v1 (Ollama), or a credential for api.openai.com.",
        )
    url = endpoint_url(config, endpoint, form="https://HOST/v1")
    path = url.path.rstrip("/").removesuffix("/chat/completions")
    return url.copy_with(path=f"{path}/chat/completions")


class OpenAIProvider:
    """An `LLMProvider`; holds no connection of its own."""

    def __init__(self, config: ProviderConfig, http: httpx2.AsyncClient, url: httpx2.URL) -> None:
        self._config = config
        self._http = http
        self._url = url
        # OpenAI's newer models refuse the old name; most other servers know only that one.
        hosted = url.host == "api.openai.com" or url.host.endswith(".openai.azure.com")
        self._limit_field = "max_completion_tokens" if hosted else "max_tokens"
        self._headers = {
            "Accept": "text/event-stream",
            # The bound on the answer's size counts bytes on the wire: compressed, they would hide any size.
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
        }
        if config.credential:
            self._headers["Authorization"] = f"Bearer {config.credential}"

    async def complete(self, request: LLMRequest, on_text: TextSink) -> LLMResponse:
        try:
            async with asyncio.timeout(request.timeout):
                return await self._call(request, on_text)
        except TimeoutError as error:
            raise self._unavailable(f"did not finish within {request.timeout:g} s") from error
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            told = f"lost its connection or has none: {type(error).__name__} {error}".rstrip()
            raise self._unavailable(told, in_doubt=not isinstance(error, _NEVER_ASKED)) from error
        except httpx2.RequestError as error:
            # Neither the network's fault nor the server's: the lent client itself does not make this request.
            said = quoted(f"can't be asked: {error}", self._config)
            raise ProviderRefused(f"provider {self._config.name!r} {said}", hint=getattr(error, "hint", "")) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._unavailable(f"sent what is not a completion: {error}") from error
        except AnswerBroken as error:
            raise self._unavailable(str(error)) from error

    async def _call(self, request: LLMRequest, on_text: TextSink) -> LLMResponse:
        stream = self._http.stream(
            "POST",
            self._url,
            content=encode_request(request, limit_field=self._limit_field),
            headers=self._headers,
            # The whole call is timed by the caller of this; a slow model must not run into the client's default read timeout.
            timeout=httpx2.Timeout(None, connect=min(_CONNECT_SECONDS, request.timeout)),
        )
        async with stream as response:
            if not response.is_success:
                body = await _head(response)
                raise status_fault(self._config, request.model, status=response.status_code, headers=response.headers, body=body)
            return await self._read(response, request, on_text)

    async def _read(self, response: httpx2.Response, request: LLMRequest, on_text: TextSink) -> LLMResponse:
        answer = Answer(model=request.model, limit=_SLACK_BYTES + _ANSWER_BYTES_PER_TOKEN * request.max_tokens, on_text=on_text)
        room = _SLACK_BYTES + _WIRE_BYTES_PER_TOKEN * request.max_tokens
        media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        whole: list[bytes] | None = [] if media_type == "application/json" else None
        events = EventDecoder()
        chunks = aiter(response.aiter_bytes())
        async for chunk in chunks:
            room -= len(chunk)
            if room < 0:
                raise AnswerBroken(f"sent far more than {request.max_tokens} tokens need and was cut off")
            if whole is not None:
                whole.append(chunk)
                continue
            for data in events.feed(chunk):
                if data.strip() == b"[DONE]":
                    completed = answer.finish()
                    await _drain(chunks)
                    return completed
                self._take(answer, data, request.model)
        if whole is None:
            raise AnswerBroken(f"ended its answer before [DONE] (content type {media_type or 'missing'})")
        # A server that does not stream answers with the whole completion, or with an error and status 200.
        self._take(answer, b"".join(whole), request.model)
        return answer.finish()

    def _take(self, answer: Answer, data: bytes, model: str) -> None:
        chunk = msgspec.json.decode(data, type=Chunk)
        if chunk.error:
            raise stream_fault(self._config, model, chunk.error)
        answer.add(chunk)

    def _unavailable(self, what: str, *, in_doubt: bool = True) -> ProviderUnavailable:
        return ProviderUnavailable(
            f"provider {self._config.name!r} {quoted(what, self._config)}",
            hint=f"If this stays, see that a chat completions server answers at {self._url}.",
            in_doubt=in_doubt,
        )


async def _head(response: httpx2.Response) -> bytes:
    """The beginning of a body, bounded."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) >= _ERROR_BYTES:
            break
    return bytes(body)


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Read what little follows the end, so that the connection can serve the next call; it can no longer fail this one."""
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for _ in chunks:
                pass
    except (TimeoutError, httpx2.HTTPError):
        return
