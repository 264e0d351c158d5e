"""The gateway: resolves an agent's model to providers, retries what passes, falls back to the next model, keeps the deadline.

A provider is opened once a process and configuration, and shared. Must not know any vendor, nor the log.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog

from hansa import clock
from hansa.egress.client import HttpClient
from hansa.llm.metering import FreeMeter, Meter, OverBudget, Target
from hansa.plugins.model import Plugins
from hansa.secrets.variables import Variables
from hansa_crds import ModelChoice, ModelProvider
from hansa_sdk import (
    Completion,
    LLMProvider,
    LLMRequest,
    ProviderConfig,
    ProviderError,
    ProviderKind,
    ProviderRefused,
    ProviderServices,
    ProviderUnavailable,
)

log = structlog.stdlib.get_logger("hansa.llm")
ATTEMPTS = 3
LONGEST_PAUSE = 30.0


class LiveText(Protocol):
    """Where text goes as it arrives. `reset` says that the step's text so far is void: another attempt begins."""

    def text(self, piece: str) -> None: ...

    def reset(self) -> None: ...


class _Failure(msgspec.Struct, frozen=True):
    """Why one target did not answer; `final`: it would not answer later either."""

    text: str
    final: bool
    over: OverBudget | None = None


class _Ear:
    """Hears an answer. `doubt`: after a failure, whether the provider may have answered nevertheless, and be paid for it."""

    def __init__(self, live: LiveText) -> None:
        self._live = live
        self.doubt = False

    def text(self, piece: str) -> None:
        self.doubt = True
        self._live.text(piece)


class Gateway:
    """Opens providers and asks them. Use `open_gateway`."""

    def __init__(self, plugins: Plugins, services: ProviderServices, variables: Variables, stack: AsyncExitStack) -> None:
        self._plugins = plugins
        self._services = services
        self._variables = variables
        self._stack = stack
        self._open: dict[bytes, tuple[LLMProvider, asyncio.Semaphore]] = {}
        self._opening = asyncio.Lock()

    def usable(self, provider: ModelProvider) -> str:
        """Why a provider can't be asked at all, for people; empty: it can."""
        spec = provider.spec
        known = self._plugins.providers.get(spec.plugin)
        if known is None:
            loaded = ", ".join(sorted(self._plugins.providers)) or "none"
            return f"no loaded plugin brings the provider kind {spec.plugin!r} (loaded: {loaded}); a package hansa-{spec.plugin} might"
        refusal = self._variables.refusal(spec.credentials.env) if spec.credentials is not None else ""
        if refusal:
            return refusal
        if spec.credentials is not None and not self._variables.value(spec.credentials.env) and known[1].requires_credential:
            return f"the environment variable {spec.credentials.env} is not set"
        if spec.credentials is None and known[1].requires_credential:
            return "it needs credentials: set spec.credentials.env"
        if spec.endpoint is None and known[1].requires_endpoint:
            return "it needs spec.endpoint"
        return ""

    async def complete(self, targets: Sequence[Target], request: LLMRequest, live: LiveText, meter: Meter) -> Completion:
        """The first good answer of the targets, in their order; a target whose answer may cost too much is passed over.

        Raises `ProviderUnavailable` after retries everywhere, `ProviderRefused` when no retry helps anywhere, or the meter's `OverBudget`
        when that alone stands against it.
        """
        give_up, attempts, failures = clock.monotonic() + request.timeout, 0, list[_Failure]()
        for position, target in enumerate(targets):
            name, reason = target.provider.metadata.name, self.usable(target.provider)
            if reason:
                failures.append(_Failure(f"{name}: {reason}", final=True))
                continue
            # Each model is given its share of what is left, or one that hangs would leave no time for its fallbacks.
            until = clock.monotonic() + (give_up - clock.monotonic()) / (len(targets) - position)
            for attempt in range(ATTEMPTS):
                left = until - clock.monotonic()
                if left <= 0:
                    break
                attempts += 1
                ear = _Ear(live)
                try:
                    asked = await meter.begin(target, msgspec.structs.replace(request, model=target.model, timeout=left))
                    response = await self._ask(target, asked, ear, left)
                except OverBudget as error:
                    failures.append(_Failure(f"{name}: {error.detail}", final=True, over=error))
                    break
                except ProviderRefused as error:
                    meter.failed(lost=ear.doubt or error.in_doubt)
                    failures.append(_Failure(f"{name}: {error.detail}. {error.hint}".removesuffix(". "), final=True))
                    break
                except ProviderUnavailable as error:
                    meter.failed(lost=ear.doubt or error.in_doubt)
                    failures.append(_Failure(f"{name}: {error.detail}", final=False))
                    live.reset()
                    pause = error.retry_after if error.retry_after is not None else 0.25 * 2**attempt
                    log.warning("llm.retry", provider=name, attempt=attempt + 1, pause=pause, reason=error.detail)
                    if attempt + 1 == ATTEMPTS or pause > min(LONGEST_PAUSE, until - clock.monotonic()):
                        break
                    await asyncio.sleep(pause)
                else:
                    return Completion(response, name, attempts, meter.answered(response.usage))
            live.reset()
        raise _no_answer(failures, request.timeout)

    async def _ask(self, target: Target, request: LLMRequest, ear: "_Ear", left: float) -> Any:
        try:
            async with asyncio.timeout(left):
                provider, slots = await self._provider(target.provider)
                async with slots:
                    return await provider.complete(request, ear.text)
        except TimeoutError as error:
            raise ProviderUnavailable(f"no answer within {left:.0f} s", in_doubt=True) from error
        except (ProviderRefused, ProviderUnavailable):
            raise
        # A provider plugin is a stranger's code: its defect counts as this model being away, is logged, and fallbacks go on.
        except Exception as error:
            log.exception("llm.provider_broke", provider=target.provider.metadata.name, plugin=target.provider.spec.plugin)
            raise ProviderUnavailable(
                f"the plugin {target.provider.spec.plugin} broke: {type(error).__name__}: {error}", in_doubt=True
            ) from error

    async def _provider(self, provider: ModelProvider) -> tuple[LLMProvider, asyncio.Semaphore]:
        spec, kind = provider.spec, self._plugins.providers[provider.spec.plugin][1]
        credential = self._variables.value(spec.credentials.env) if spec.credentials else None
        config = ProviderConfig(provider.metadata.name, spec.endpoint, credential or None, tuple(model.name for model in spec.models))
        name = msgspec.json.encode([spec.plugin, config, spec.max_concurrency])
        async with self._opening:
            if name not in self._open:
                opened = await self._stack.enter_async_context(_opened(kind, config, self._services))
                self._open[name] = (opened, asyncio.Semaphore(spec.max_concurrency or kind.max_concurrency or 1_000_000))
            return self._open[name]


@asynccontextmanager
async def _opened(kind: ProviderKind, config: ProviderConfig, services: ProviderServices) -> AsyncIterator[LLMProvider]:
    async with kind.open(config, services) as provider:
        yield provider


def _no_answer(failures: Sequence[_Failure], timeout: float) -> ProviderError | OverBudget:
    over = next((failure.over for failure in failures if failure.over is not None), None)
    if over is not None and all(failure.final for failure in failures):
        return over
    told = "no model answered: " + ("; ".join(dict.fromkeys(failure.text for failure in failures)) or f"nothing within {timeout:g} s")
    if failures and all(failure.final for failure in failures):
        return ProviderRefused(told, hint="`hansa models` shows which can be used.")
    return ProviderUnavailable(told, hint="`hansa models` shows which can be used; runs may be started again later.")


class AgentModel:
    """One agent's model with its fallbacks, bound to the providers as they were when the run was loaded."""

    def __init__(self, gateway: Gateway, targets: Sequence[Target]) -> None:
        self._gateway = gateway
        self._targets = targets

    async def complete(self, request: LLMRequest, live: LiveText, meter: Meter | None = None) -> Completion:
        return await self._gateway.complete(self._targets, request, live, meter or FreeMeter())


def resolve(choices: Sequence[ModelChoice], providers: Sequence[ModelProvider]) -> tuple[list[Target], list[str]]:
    """Targets for aliases and `provider/model` references, in order, and what could not be found (as texts)."""
    targets: list[Target] = []
    missing: list[str] = []
    for choice in choices:
        found = [
            Target(provider, model.name)
            for provider in providers
            for model in provider.spec.models
            if (choice.alias is not None and choice.alias in model.aliases) or choice.ref == f"{provider.metadata.name}/{model.name}"
        ]
        targets.extend(found)
        if not found:
            known = sorted({alias for provider in providers for model in provider.spec.models for alias in model.aliases})
            missing.append(f"no ModelProvider offers {choice.alias or choice.ref!r} (aliases: {', '.join(known) or 'none'})")
    return targets, missing


@asynccontextmanager
async def open_gateway(plugins: Plugins, http: HttpClient, data_dir: Path, *, variables: Variables) -> AsyncIterator[Gateway]:
    """A gateway whose providers are closed at the end. Credentials are `variables` of the names that objects give."""
    async with AsyncExitStack() as stack:
        yield Gateway(plugins, ProviderServices(http=http, data_dir=data_dir), variables, stack)
