"""The gateway: what is retried, what falls back, how long it takes at most, and that nobody hears a text twice."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from hansa.egress.client import open_client
from hansa.egress.policy import EgressPolicy
from hansa.llm.metering import Target
from hansa.llm.service import AgentModel, open_gateway, resolve
from hansa.plugins.model import Plugins
from hansa.secrets.variables import admitted
from hansa.tenants.secrets.lookup import Lookup
from hansa_crds import ModelChoice, ModelProvider
from hansa_sdk import (
    LLMProvider,
    LLMRequest,
    LLMResponse,
    Message,
    ProviderConfig,
    ProviderKind,
    ProviderRefused,
    ProviderServices,
    ProviderUnavailable,
    Role,
    StopReason,
    TextSink,
    Usage,
)

Answer = str | Exception | Callable[[TextSink], Any]
TENANT = UUID(int=1)
ASK = LLMRequest((Message(Role.USER, "hello"),), timeout=5.0)


class Heard:
    """What a viewer would see: pieces, and None where the text so far is void."""

    def __init__(self) -> None:
        self.said: list[str | None] = []

    def text(self, piece: str) -> None:
        self.said.append(piece)

    def reset(self) -> None:
        if self.said and self.said[-1] is not None:
            self.said.append(None)

    def shown(self) -> str:
        """The text on the screen at the end."""
        last = max((place for place, piece in enumerate(self.said) if piece is None), default=-1)
        return "".join(piece or "" for piece in self.said[last + 1 :])


class Staged:
    """A provider that gives one prepared answer after the other; the last one again and again."""

    def __init__(self, *answers: Answer, usage: Usage = Usage()) -> None:
        self._answers = answers
        self._usage = usage
        self.asked: list[LLMRequest] = []
        self.times: list[float] = []
        self.at_once = self.most_at_once = 0

    async def complete(self, request: LLMRequest, on_text: TextSink) -> LLMResponse:
        self.asked.append(request)
        self.times.append(time.monotonic())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            answer = self._answers[min(len(self.asked), len(self._answers)) - 1]
            if callable(answer):
                answer = await answer(on_text)
            if isinstance(answer, Exception):
                raise answer
            on_text(answer)
            return LLMResponse(answer, StopReason.END, request.model, usage=self._usage)
        finally:
            self.at_once -= 1


def half(text: str, then: Exception) -> Callable[[TextSink], Any]:
    """Some text, and then a failure."""

    async def answer(on_text: TextSink) -> Exception:
        on_text(text)
        return then

    return answer


async def hang(on_text: TextSink) -> str:
    on_text("one moment")
    await asyncio.sleep(60)
    return "too late"


def away(retry_after: float | None = None) -> ProviderUnavailable:
    return ProviderUnavailable("overloaded", status=529, retry_after=retry_after)


def manifest(name: str, **spec: Any) -> ModelProvider:
    """A ModelProvider of the plugin of the same name."""
    body = {"plugin": name, "models": [{"name": "large", "aliases": ["good"]}], **spec}
    whole = {"apiVersion": "hansa.dev/v1alpha1", "kind": "ModelProvider", "metadata": {"name": name}, "spec": body}
    return msgspec.convert(whole, ModelProvider)


@asynccontextmanager
async def model(
    tmp_path: Path, environ: dict[str, str] | None = None, /, **staged: LLMProvider | ProviderKind
) -> AsyncIterator[Callable[..., AgentModel]]:
    """Models over providers by name; gives a maker of agent models from manifests."""

    def kind(name: str, provider: LLMProvider) -> ProviderKind:
        @asynccontextmanager
        async def opened(config: ProviderConfig, services: ProviderServices) -> AsyncIterator[LLMProvider]:
            yield provider

        return ProviderKind(name, opened)

    kinds = {name: (name, each if isinstance(each, ProviderKind) else kind(name, each)) for name, each in staged.items()}
    plugins = Plugins((), {}, kinds, {})
    async with (
        open_client(EgressPolicy()) as http,
        open_gateway(plugins, http, tmp_path, lookup=Lookup(admitted(environ or {}, "PAID_TOKEN"))) as gateway,
    ):
        yield lambda *manifests: AgentModel(
            gateway, TENANT, [Target(each, "large") for each in manifests or [manifest(name) for name in staged]]
        )


async def test_a_passing_failure_is_retried_and_no_text_is_doubled(tmp_path: Path) -> None:
    provider, heard = Staged(half("Hel", away()), half("Hello w", away()), "Hello world"), Heard()
    async with model(tmp_path, one=provider) as make:
        done = await make().complete(ASK, heard)
    assert (done.response.text, done.provider, done.attempts) == ("Hello world", "one", 3)
    assert heard.said == ["Hel", None, "Hello w", None, "Hello world"]
    assert heard.shown() == "Hello world"
    assert [request.model for request in provider.asked] == ["large"] * 3


@pytest.mark.parametrize(
    ("told", "counted"),
    [(Usage(3, 4), Usage(3, 4)), (Usage(-3, 4), Usage(0, 4)), (Usage(3, -(10**6)), Usage(3, 0)), (Usage(10**30, 2**63), Usage())],
    ids=["tokens", "fewer than none read", "fewer than none written", "more than there are"],
)
async def test_what_can_be_no_count_of_tokens_is_not_told(tmp_path: Path, told: Usage, counted: Usage) -> None:
    """Whoever names the endpoint of a model would else be paid for calling it."""
    async with model(tmp_path, one=Staged("yes", usage=told)) as make:
        assert (await make().complete(ASK, Heard())).response.usage == counted


async def test_a_wait_that_the_provider_asks_for_is_kept(tmp_path: Path) -> None:
    provider = Staged(away(retry_after=0.6), away(retry_after=0.0), "yes")
    async with model(tmp_path, one=provider) as make:
        await make().complete(ASK, Heard())
    first, second = provider.times[1] - provider.times[0], provider.times[2] - provider.times[1]
    assert 0.6 <= first < 3.0
    assert second < 0.5


async def test_a_wait_that_is_too_long_is_not_waited_for(tmp_path: Path) -> None:
    provider, other = Staged(away(retry_after=3600)), Staged("from the other")
    begun = time.monotonic()
    async with model(tmp_path, one=provider, other=other) as make:
        done = await make().complete(ASK, Heard())
    assert (done.provider, done.attempts, len(provider.asked)) == ("other", 2, 1)
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    ("failure", "asked"), [(away(), 3), (ProviderRefused("wrong key", status=401), 1), (LookupError("a defect of the plugin"), 3)]
)
async def test_the_next_model_stands_in_and_the_text_of_the_first_is_void(tmp_path: Path, failure: Exception, asked: int) -> None:
    provider, other, heard = Staged(half("from the first", failure)), Staged("from the other"), Heard()
    async with model(tmp_path, one=provider, other=other) as make:
        done = await make().complete(ASK, heard)
    assert (done.provider, done.attempts, len(provider.asked)) == ("other", asked + 1, asked)
    assert heard.shown() == "from the other"


async def test_a_model_that_hangs_leaves_time_for_the_next(tmp_path: Path) -> None:
    provider, other, heard = Staged(hang), Staged("from the other"), Heard()
    begun = time.monotonic()
    async with model(tmp_path, one=provider, other=other) as make:
        done = await make().complete(msgspec.structs.replace(ASK, timeout=1.0), heard)
    assert (done.provider, heard.shown()) == ("other", "from the other")
    assert time.monotonic() - begun < 3
    assert provider.at_once == 0, "the call that hung is still open"


async def test_when_nobody_answers_each_reason_is_told_and_the_deadline_is_kept(tmp_path: Path) -> None:
    providers = {"one": Staged(hang), "two": Staged(away()), "three": Staged(ProviderRefused("no such model", hint="Look."))}
    begun = time.monotonic()
    async with model(tmp_path, **providers) as make:
        with pytest.raises(ProviderUnavailable) as failed:
            await make().complete(msgspec.structs.replace(ASK, timeout=3.0), Heard())
    assert all(told in failed.value.detail for told in ("one: no answer within", "two: overloaded", "three: no such model. Look."))
    assert time.monotonic() - begun < 5


async def test_what_no_retry_can_help_is_refused(tmp_path: Path) -> None:
    async with model(tmp_path, one=Staged(ProviderRefused("wrong key"))) as make:
        with pytest.raises(ProviderRefused, match="one: wrong key"):
            await make().complete(ASK, Heard())
        with pytest.raises(ProviderRefused, match="no loaded plugin brings the provider kind 'gone'"):
            await make(manifest("gone")).complete(ASK, Heard())


async def test_a_provider_that_cannot_be_opened_is_passed_over(tmp_path: Path) -> None:
    @asynccontextmanager
    async def opened(config: ProviderConfig, services: ProviderServices) -> AsyncIterator[LLMProvider]:
        raise LookupError("no weights here")
        yield Staged()

    async with model(tmp_path, bad=ProviderKind("bad", opened), other=Staged("from the other")) as make:
        assert (await make().complete(ASK, Heard())).provider == "other"
        with pytest.raises(ProviderUnavailable, match="the plugin bad broke: LookupError: no weights here"):
            await make(manifest("bad")).complete(ASK, Heard())


async def test_a_missing_credential_passes_on_to_the_next_at_once(tmp_path: Path) -> None:
    seen: list[ProviderConfig] = []

    @asynccontextmanager
    async def opened(config: ProviderConfig, services: ProviderServices) -> AsyncIterator[LLMProvider]:
        seen.append(config)
        yield Staged("paid")

    paid, credentials = ProviderKind("paid", opened, requires_credential=True), {"credentials": {"env": "PAID_TOKEN"}}
    async with model(tmp_path, paid=paid, other=Staged("free")) as make:
        done = await make(manifest("paid", **credentials), manifest("other")).complete(ASK, Heard())
        assert (done.provider, done.attempts, seen) == ("other", 1, [])
        with pytest.raises(ProviderRefused, match="the environment variable PAID_TOKEN is not set"):
            await make(manifest("paid", **credentials)).complete(ASK, Heard())
    async with model(tmp_path, {"PAID_TOKEN": "made up"}, paid=paid) as make:
        assert (await make(manifest("paid", **credentials)).complete(ASK, Heard())).response.text == "paid"
    assert [config.credential for config in seen] == ["made up"]


@pytest.mark.parametrize("env", ["HANSA_DATABASE_APP_URL", "DEPLOY_TOKEN"])
async def test_a_variable_that_is_not_admitted_is_never_given_to_a_provider(tmp_path: Path, env: str) -> None:
    seen: list[ProviderConfig] = []

    @asynccontextmanager
    async def opened(config: ProviderConfig, services: ProviderServices) -> AsyncIterator[LLMProvider]:
        seen.append(config)
        yield Staged("given")

    async with model(tmp_path, {env: "made up"}, greedy=ProviderKind("greedy", opened)) as make:
        with pytest.raises(ProviderRefused, match=r"platform's own|HANSA_CREDENTIALS_ALLOW admits PAID_TOKEN"):
            await make(manifest("greedy", credentials={"env": env})).complete(ASK, Heard())
    assert seen == []


async def test_no_more_calls_at_once_than_the_provider_takes(tmp_path: Path) -> None:
    async def slow(on_text: TextSink) -> str:
        await asyncio.sleep(0.05)
        return "done"

    provider = Staged(slow)
    async with model(tmp_path, one=provider) as make:
        agent = make(manifest("one", maxConcurrency=2))
        await asyncio.gather(*(agent.complete(ASK, Heard()) for _ in range(8)))
    assert (len(provider.asked), provider.most_at_once) == (8, 2)


async def test_a_canceled_question_ends_the_call(tmp_path: Path) -> None:
    provider = Staged(hang)
    async with model(tmp_path, one=provider) as make:
        asking = asyncio.create_task(make().complete(ASK, Heard()))
        while not provider.at_once:
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert provider.at_once == 0
    assert len(provider.asked) == 1


def test_models_are_found_by_alias_and_by_name_in_the_order_of_choice() -> None:
    providers = [manifest("one"), manifest("two", models=[{"name": "small"}])]

    def names(targets: Sequence[Target]) -> list[tuple[str, str]]:
        return [(target.provider.metadata.name, target.model) for target in targets]

    targets, missing = resolve((ModelChoice(ref="two/small"), ModelChoice(alias="good"), ModelChoice(alias="best")), providers)
    assert names(targets) == [("two", "small"), ("one", "large")]
    assert missing == ["no ModelProvider offers 'best' (aliases: good)"]
