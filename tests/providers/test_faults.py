"""What every provider that speaks HTTP promises when its server fails, stalls, babbles or breaks off.

One suite for all of them, against a server that does each of these things for real.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx2
import pytest

from doubles.llm_upstream import Kind, LLMUpstream, Scenario
from hansa.egress.client import open_client
from hansa.egress.policy import EgressPolicy
from hansa_anthropic.plugin import hansa_llm_providers as anthropic_kinds
from hansa_openai.plugin import hansa_llm_providers as openai_kinds
from hansa_sdk import (
    LLMProvider,
    LLMRequest,
    LLMResponse,
    ProviderConfig,
    ProviderRefused,
    ProviderServices,
    ProviderUnavailable,
    StopReason,
    TextSink,
)
from providers.calls import KEY, ask, complete, outage, refusal
from providers.oracle import BROKEN_OFF, tails_lost

pytestmark = pytest.mark.timeout(30)
KINDS = {kind.name: kind for kind in (*anthropic_kinds(), *openai_kinds())}


def opened(name: str, services: ProviderServices, url: str) -> AbstractAsyncContextManager[LLMProvider]:
    endpoint = {"openai": f"{url}/v1", "anthropic": url}[name]
    return KINDS[name].open(ProviderConfig("upstream", endpoint=endpoint, credential=KEY), services)


@pytest.fixture(params=sorted(KINDS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def provider(name: str, upstream: LLMUpstream, services: ProviderServices) -> AsyncIterator[LLMProvider]:
    async with opened(name, services, upstream.url) as it:
        yield it


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 529])
async def test_a_passing_fault_is_worth_a_retry(provider: LLMProvider, upstream: LLMUpstream, status: int) -> None:
    upstream.then(Scenario(Kind.STATUS, status=status))
    fault = await outage(provider)
    assert fault.status == status
    assert fault.retry_after is None
    assert fault.detail == f"provider 'upstream' answered {status}: the double says no"
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (400, "Check model 'm'"),
        (401, "Check the credential of ModelProvider 'upstream'"),
        (403, "may not use model 'm'"),
        (404, "there is no model 'm'"),
        (413, "shorten it"),
        (422, "output schema"),
        (307, "redirects"),
    ],
)
async def test_a_lasting_fault_says_what_to_do(provider: LLMProvider, upstream: LLMUpstream, status: int, hint: str) -> None:
    upstream.then(Scenario(Kind.STATUS, status=status))
    fault = await refusal(provider)
    assert fault.status == status
    assert hint in fault.hint
    assert len(upstream.requests) == 1


async def test_after_failures_the_same_provider_answers(provider: LLMProvider, upstream: LLMUpstream) -> None:
    upstream.fail_times(2)
    assert [(await outage(provider)).status for _ in range(2)] == [529, 529]
    assert (await complete(provider, ask()))[0].text == "one two three"


async def test_the_waiting_time_is_read_in_seconds_and_as_a_date(provider: LLMProvider, upstream: LLMUpstream) -> None:
    def limited(value: str) -> Scenario:
        return Scenario(Kind.STATUS, status=429, retry_after=value)

    upstream.then(limited("7"), limited("0.5"), limited("soon"), limited("-3"), limited("nan"))
    assert [(await outage(provider)).retry_after for _ in range(5)] == [7.0, 0.5, None, 0.0, None]
    upstream.then(limited(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)))
    waiting = (await outage(provider)).retry_after
    assert waiting is not None
    assert 50 < waiting <= 60
    upstream.then(limited(format_datetime(datetime.now(UTC) - timedelta(seconds=60), usegmt=True)))
    assert (await outage(provider)).retry_after == 0.0


async def test_plain_text_errors_are_quoted_in_short(provider: LLMProvider, upstream: LLMUpstream) -> None:
    upstream.then(Scenario(Kind.PLAIN_ERROR, said="upstream\n  connect error"), Scenario(Kind.PLAIN_ERROR, said="no " * 1000))
    assert (await outage(provider)).detail == "provider 'upstream' answered 503: upstream connect error"
    assert len((await outage(provider)).detail) < 400


async def test_an_error_that_never_ends_is_read_in_part(provider: LLMProvider, upstream: LLMUpstream) -> None:
    upstream.then(Kind.ENDLESS_ERROR)
    fault = await outage(provider)
    assert fault.status == 500
    assert fault.detail.startswith("provider 'upstream' answered 500: no no no")
    assert await upstream.requests[0].is_abandoned(within=5)


async def test_the_credential_is_in_no_error(provider: LLMProvider, upstream: LLMUpstream) -> None:
    for status in (400, 401, 500):
        upstream.then(Scenario(Kind.STATUS, status=status, said=f"bad key {KEY} (ends in {KEY[-6:]})"))
        with pytest.raises((ProviderRefused, ProviderUnavailable)) as caught:
            await provider.complete(ask(), lambda piece: None)
        assert KEY not in f"{caught.value.detail} {caught.value.hint}"
        assert (KEY[-6:] in caught.value.detail) == (status != 401)


@pytest.mark.parametrize(
    "kind",
    [
        Kind.HALF_STREAM,
        Kind.NO_TERMINATOR,
        Kind.MALFORMED_JSON,
        Kind.WRONG_SHAPE,
        Kind.NOT_UTF8,
        Kind.STREAM_ERROR,
        Kind.HTML,
        Kind.EMPTY,
    ],
)
async def test_a_broken_answer_is_an_outage(provider: LLMProvider, upstream: LLMUpstream, kind: Kind) -> None:
    upstream.then(kind)
    assert (await outage(provider)).detail.startswith("provider 'upstream' ")
    assert (await complete(provider, ask()))[0].text == "one two three"


async def test_a_page_of_another_server_is_named(provider: LLMProvider, upstream: LLMUpstream) -> None:
    upstream.then(Kind.HTML)
    fault = await outage(provider)
    assert "text/html" in fault.detail
    assert upstream.url in fault.hint


@pytest.mark.parametrize("kind", [Kind.NEVER_ENDS, Kind.KEEP_ALIVE_ONLY, Kind.HUGE_LINE])
async def test_an_answer_that_never_ends_is_cut_off(provider: LLMProvider, upstream: LLMUpstream, kind: Kind) -> None:
    upstream.then(kind)
    pieces: list[str] = []
    with pytest.raises(ProviderUnavailable, match="cut off"):
        await provider.complete(ask(max_tokens=16), pieces.append)
    assert len("".join(pieces)) <= 64 * 1024 + 64 * 16
    assert await upstream.requests[0].is_abandoned(within=5)


async def test_a_long_honest_answer_is_not_cut_off(provider: LLMProvider, upstream: LLMUpstream) -> None:
    text = "word " * 8192
    upstream.then(Scenario(text=text))
    answer, _ = await complete(provider, ask(max_tokens=8192))
    assert answer.text == text


@pytest.mark.parametrize("scenario", [Scenario(Kind.HANG), Scenario(delay=30), Scenario(text="a b c d e f g h", pace=0.2)])
async def test_a_slow_answer_ends_with_the_time_of_the_call(provider: LLMProvider, upstream: LLMUpstream, scenario: Scenario) -> None:
    upstream.then(scenario)
    fault = await outage(provider, ask(timeout=0.8))
    assert fault.detail == "provider 'upstream' did not finish within 0.8 s"
    assert await upstream.requests[0].is_abandoned(within=5)


async def test_a_call_has_its_own_time_whatever_the_lent_client_allows(name: str, upstream: LLMUpstream, tmp_path: Path) -> None:
    upstream.then(Scenario(delay=0.6))
    async with httpx2.AsyncClient(trust_env=False, timeout=0.2) as http, opened(name, ProviderServices(http, tmp_path), upstream.url) as it:
        assert (await complete(it, ask()))[0].text == "one two three"


async def test_nobody_listening_is_an_outage(name: str, services: ProviderServices) -> None:
    with LLMUpstream() as gone:
        url = gone.url
    async with opened(name, services, url) as provider:
        assert "ConnectError" in (await outage(provider)).detail


async def test_an_endpoint_that_the_egress_door_forbids_is_refused_unasked(name: str, upstream: LLMUpstream, tmp_path: Path) -> None:
    async with open_client(EgressPolicy(allow_http=True)) as http, opened(name, ProviderServices(http, tmp_path), upstream.url) as provider:
        fault = await refusal(provider)
    assert fault.detail.startswith("provider 'upstream' can't be asked: http://127.0.0.1")
    assert upstream.connections == 0


async def test_answers_stream_through_the_egress_door(name: str, upstream: LLMUpstream, tmp_path: Path) -> None:
    policy = EgressPolicy(allow=(upstream.url.removeprefix("http://"),))
    upstream.then(Scenario(pace=0.1))
    finished: list[bool] = []
    async with open_client(policy) as http, opened(name, ProviderServices(http, tmp_path), upstream.url) as provider:
        await provider.complete(ask(), lambda piece: finished.append(upstream.requests[0].finished.is_set()))
        assert (await complete(provider, ask("Grüße")))[0].text == "Grüße"
    assert finished == [False] * 3


@pytest.mark.parametrize("scenario", [Scenario(Kind.HANG), Scenario(text="word " * 2000, pace=0.02)])
async def test_cancelling_hangs_up(provider: LLMProvider, upstream: LLMUpstream, scenario: Scenario) -> None:
    upstream.then(scenario)
    pieces: list[str] = []
    call = asyncio.create_task(provider.complete(ask(timeout=60), pieces.append))
    async with asyncio.timeout(10):
        while not (upstream.requests if scenario.kind is Kind.HANG else pieces):
            await asyncio.sleep(0.01)
    assert not upstream.requests[0].abandoned.is_set()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await upstream.requests[0].is_abandoned(within=5)


async def test_concurrent_calls_do_not_mix(provider: LLMProvider, upstream: LLMUpstream) -> None:
    upstream.then(*[Scenario(pace=0.01)] * 8)
    texts = [" ".join([f"{number}{letter}" for letter in "abcdef"]) for number in range(8)]
    answers = await asyncio.gather(*(complete(provider, ask(text)) for text in texts))
    assert [answer.text for answer, _ in answers] == texts
    assert ["".join(pieces) for _, pieces in answers] == texts


async def test_a_connection_serves_one_call_after_another(provider: LLMProvider, upstream: LLMUpstream) -> None:
    for _ in range(3):
        await complete(provider, ask())
    assert upstream.connections == 1


async def test_a_server_that_lingers_after_the_end_delays_nothing_for_long(provider: LLMProvider, upstream: LLMUpstream) -> None:
    upstream.then(Kind.LINGERS)
    answer, _ = await complete(provider, ask(timeout=5))
    assert answer.text == "one two three"


async def test_closing_a_provider_leaves_the_lent_client_open(name: str, upstream: LLMUpstream, services: ProviderServices) -> None:
    for _ in range(2):
        async with opened(name, services, upstream.url) as provider:
            await complete(provider, ask())
    assert not services.http.is_closed


async def test_no_tail_is_lost(provider: LLMProvider, upstream: LLMUpstream) -> None:
    assert await tails_lost(provider, upstream) == []


class NaiveProvider:
    """What a provider would be that takes the end of the bytes for the end of the answer."""

    def __init__(self, services: ProviderServices, url: str) -> None:
        self._http = services.http
        self._url = url

    async def complete(self, request: LLMRequest, on_text: TextSink) -> LLMResponse:
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": request.messages[0].text}]}
        received = b""
        try:
            async with self._http.stream("POST", self._url, json=body) as response:
                async for chunk in response.aiter_bytes():
                    received += chunk
        except httpx2.RemoteProtocolError:
            on_text("")
        return LLMResponse(received.decode(), StopReason.END, "m")


async def test_the_oracle_finds_a_provider_that_loses_tails(services: ProviderServices, upstream: LLMUpstream) -> None:
    assert await tails_lost(NaiveProvider(services, upstream.url + "/v1/chat/completions"), upstream) == list(BROKEN_OFF)
