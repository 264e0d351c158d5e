"""The connection to the Messages API, through the stock SDK over the lent HTTP client.

The SDK builds, signs and sends requests and names errors; retries are the gateway's, so the SDK makes none. Warning: it reads
variables of the environment wherever it is not told otherwise, so everything it could read there is given here.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anthropic
import httpx2
import msgspec

from hansa_anthropic.answer import Answer, AnswerBroken, Event
from hansa_anthropic.conversation import messages, output_config, system_prompt, tools
from hansa_anthropic.faults import status_fault, stream_fault
from hansa_sdk import (
    LLMProvider,
    LLMRequest,
    LLMResponse,
    ProviderConfig,
    ProviderError,
    ProviderRefused,
    ProviderServices,
    ProviderUnavailable,
    TextSink,
)
from hansa_sdk.wire import endpoint_url, quoted

_ENDPOINT = "https://api.anthropic.com"
_CONNECT_SECONDS = 10.0
_DRAIN_SECONDS = 0.5
_NEVER_ASKED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
"""Faults after which the provider has seen nothing of the request."""
_SLACK_BYTES = 64 * 1024
_ANSWER_BYTES_PER_TOKEN = 64
_WIRE_BYTES_PER_TOKEN = 2048
"""An event carries one or a few tokens in some 150 bytes of envelope."""
_ONLY_TEMPERATURE = 1.0
"""Since its version 2026-10-21 the API samples at its own temperature and refuses a request that names any."""
_ERROR_BYTES = 64 * 1024


@asynccontextmanager
async def connect(config: ProviderConfig, services: ProviderServices) -> AsyncIterator[LLMProvider]:
    """Open the provider. Raises `ProviderRefused` when the configuration can't work."""
    if not config.credential:
        raise ProviderRefused(
            f"provider {config.name!r} has no credential", hint="Give the ModelProvider a credential that holds an API key."
        )
    endpoint = config.endpoint or _ENDPOINT
    url = endpoint_url(config, endpoint, form="https://HOST, without /v1")
    client = _Client(
        api_key=config.credential,
        base_url=url.copy_with(path=url.path.rstrip("/").removesuffix("/v1") + "/"),
        http_client=services.http,
        max_retries=0,
        open_telemetry=False,
        middleware=[_bound_error_body],
    )
    # The client is not closed: that would close the lent HTTP client.
    yield AnthropicProvider(config, client)


class _Client(anthropic.AsyncAnthropic):
    """Without the headers that the SDK takes from the environment; they could replace the credential."""

    @property
    def _custom_headers(self) -> dict[str, str]:
        return {}

    @_custom_headers.setter
    def _custom_headers(self, value: object) -> None:
        del value


class AnthropicProvider:
    """An `LLMProvider`; holds no connection of its own."""

    def __init__(self, config: ProviderConfig, client: anthropic.AsyncAnthropic) -> None:
        self._config = config
        self._client = client

    async def complete(self, request: LLMRequest, on_text: TextSink) -> LLMResponse:
        try:
            async with asyncio.timeout(request.timeout):
                return await self._call(request, on_text)
        except TimeoutError as error:
            raise self._unavailable(f"did not finish within {request.timeout:g} s") from error
        except anthropic.APIStatusError as error:
            raise status_fault(self._config, request.model, error) from error
        except anthropic.APIConnectionError as error:
            raise self._lost(error.__cause__ or error) from error
        except httpx2.RequestError as error:
            raise self._lost(error) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._unavailable(f"sent what is not a message: {error}") from error
        except AnswerBroken as error:
            raise self._unavailable(str(error)) from error

    async def _call(self, request: LLMRequest, on_text: TextSink) -> LLMResponse:
        conversation = messages(request)
        if not conversation:
            raise ProviderRefused("the conversation holds no text for the model to answer", hint="Give the run an input that is not blank.")
        if request.temperature not in (None, _ONLY_TEMPERATURE):
            raise ProviderRefused(
                f"provider {self._config.name!r} can't sample at temperature {request.temperature:g}: the Messages API has no such setting",
                hint="Take the temperature out of the agent, or give the agent another model.",
            )
        output = output_config(request.output_schema)
        system = system_prompt(request, schema_as_text=request.output_schema is not None and output is None)
        stream = await self._client.messages.create(
            model=request.model,
            max_tokens=request.max_tokens,
            messages=conversation,
            system=system or anthropic.omit,
            tools=tools(request) or anthropic.omit,
            output_config=output or anthropic.omit,
            stream=True,
            # The bound on the answer's size counts bytes on the wire: compressed, they would hide any size.
            extra_headers={"Accept-Encoding": "identity"},
            # The whole call is timed by the caller of this; a slow model must not run into a read timeout.
            timeout=httpx2.Timeout(None, connect=min(_CONNECT_SECONDS, request.timeout)),
        )
        async with stream:
            return await self._read(stream.response, request, on_text)

    async def _read(self, response: httpx2.Response, request: LLMRequest, on_text: TextSink) -> LLMResponse:
        response.stream = _Bounded(response.stream, _SLACK_BYTES + _WIRE_BYTES_PER_TOKEN * request.max_tokens)
        answer = Answer(limit=_SLACK_BYTES + _ANSWER_BYTES_PER_TOKEN * request.max_tokens, on_text=on_text)
        events = anthropic.AsyncStream.raw_events(response)
        async for raw in events:
            if not raw.data:
                continue
            event = msgspec.json.decode(raw.data, type=Event)
            if event.error is not None:
                raise stream_fault(self._config, request.model, kind=event.error.type, said=event.error.message)
            completed = answer.add(event)
            if completed is not None:
                await _drain(events)
                return completed
        media_type = response.headers.get("content-type", "missing")
        raise AnswerBroken(f"ended its answer before message_stop (content type {media_type})")

    def _lost(self, error: BaseException) -> ProviderError:
        if isinstance(error, httpx2.RequestError) and not isinstance(error, httpx2.TransportError | httpx2.DecodingError):
            # Neither the network's fault nor the server's: the lent client itself does not make this request.
            said = quoted(f"can't be asked: {error}", self._config)
            return ProviderRefused(f"provider {self._config.name!r} {said}", hint=getattr(error, "hint", ""))
        told = f"lost its connection or has none: {type(error).__name__} {error}".rstrip()
        return self._unavailable(told, in_doubt=not isinstance(error, _NEVER_ASKED))

    def _unavailable(self, what: str, *, in_doubt: bool = True) -> ProviderUnavailable:
        return ProviderUnavailable(
            f"provider {self._config.name!r} {quoted(what, self._config)}",
            hint=f"If this stays, see that the Messages API answers at {self._client.base_url}.",
            in_doubt=in_doubt,
        )


class _Bounded(httpx2.AsyncByteStream):
    """A response's bytes, up to a limit: the SDK would keep a line that never ends for ever. With `cut` they just end there."""

    def __init__(self, stream: object, limit: int, *, cut: bool = False) -> None:
        if not isinstance(stream, httpx2.AsyncByteStream):
            raise TypeError(f"not a stream of an asynchronous client: {stream!r}")
        self._stream = stream
        self._room = limit
        self._cut = cut

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._room -= len(chunk)
            if self._room < 0 and self._cut:
                return
            if self._room < 0:
                raise AnswerBroken("sent far more than the answer may need and was cut off")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound_error_body(request: anthropic.APIRequest, call_next: anthropic.AsyncCallNext) -> anthropic.AsyncAPIResponse[object]:
    # The SDK reads the body of an error to its end, however long.
    answered = await call_next(request)
    response = answered.http_response
    if not response.is_success:
        response.stream = _Bounded(response.stream, _ERROR_BYTES, cut=True)
    return answered


async def _drain(events: AsyncIterator[object]) -> None:
    """Read what little follows the end, so that the connection can serve the next call; it can no longer fail this one."""
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for _ in events:
                pass
    except (TimeoutError, httpx2.HTTPError, AnswerBroken, UnicodeDecodeError):
        return
