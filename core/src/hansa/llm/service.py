"""The gateway: resolves an agent's model to providers, retries what passes, falls back to the next model, keeps the deadline.

Credentials are looked up for each call, and nothing of them comes back. Must not know any vendor, nor the log.
"""

import asyncio
from collections.abc import AsyncIterator, Container, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar
from uuid import UUID

import msgspec
import structlog

from hansa import clock
from hansa.egress.client import HttpClient
from hansa.egress.narrowing import narrowing_within
from hansa.errors import HansaError
from hansa.llm.metering import FreeMeter, Meter, OverBudget, Target, credible
from hansa.llm.model import LiveText
from hansa.llm.pool import ProviderPool, open_pool
from hansa.llm.secrecy import Veil
from hansa.plugins.model import Plugins
from hansa.tenants.secrets.lookup import Lookup, passes
from hansa_crds import ModelChoice, ModelProvider
from hansa_sdk import (
    Completion,
    LLMRequest,
    LLMResponse,
    ProviderError,
    ProviderRefused,
    ProviderServices,
    ProviderUnavailable,
)

log = structlog.stdlib.get_logger("hansa.llm")
ATTEMPTS = 3
LONGEST_PAUSE = 30.0


class CredentialAway(ProviderUnavailable):
    """What keeps the tenant's secret does not answer for now, and no other model answered: the run waits, however often."""

    code: ClassVar[str] = "secrets_away"


class _Failure(msgspec.Struct, frozen=True):
    """Why one target did not answer; `final`: it would not answer later either; `away`: its credential can't be had for now."""

    text: str
    final: bool
    away: bool = False
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

    def __init__(self, plugins: Plugins, pool: ProviderPool, lookup: Lookup) -> None:
        self._plugins = plugins
        self._pool = pool
        self._lookup = lookup

    def usable(self, provider: ModelProvider, secrets: Container[str] | None = None) -> str:
        """Why a provider can't be asked at all, for people; empty: it can. `secrets`: names of the tenant's, if they were asked."""
        spec = provider.spec
        known = self._plugins.providers.get(spec.plugin)
        if known is None:
            loaded = ", ".join(sorted(self._plugins.providers)) or "none"
            return f"no loaded plugin brings the provider kind {spec.plugin!r} (loaded: {loaded}); a package hansa-{spec.plugin} might"
        refusal = self._lookup.refusal(spec.credentials, secrets)
        if refusal:
            return refusal
        if spec.credentials is not None and not self._lookup.is_set(spec.credentials) and known[1].requires_credential:
            return f"the environment variable {spec.credentials.env} is not set"
        if spec.credentials is None and known[1].requires_credential:
            return "it needs credentials: set spec.credentials.secret or spec.credentials.env"
        if spec.endpoint is None and known[1].requires_endpoint:
            return "it needs spec.endpoint"
        return ""

    async def complete(
        self, tenant_id: UUID, targets: Sequence[Target], request: LLMRequest, live: LiveText, *, meter: Meter
    ) -> Completion:
        """The first good answer of the targets, in their order; a target whose answer may cost too much is passed over.

        Raises `ProviderUnavailable` after retries everywhere, `CredentialAway` when a credential could not be looked up for now,
        `ProviderRefused` when no retry helps anywhere, or the meter's `OverBudget` when that alone stands against it.
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
                    response = await self._ask(tenant_id, target, asked, ear, left)
                except OverBudget as error:
                    failures.append(_Failure(f"{name}: {error.detail}", final=True, over=error))
                    break
                except ProviderRefused as error:
                    meter.failed(lost=ear.doubt or error.in_doubt)
                    failures.append(_Failure(f"{name}: {error.detail}. {error.hint}".removesuffix(". "), final=True))
                    break
                except CredentialAway as error:
                    meter.failed(lost=False)
                    failures.append(_Failure(f"{name}: {error.detail}", final=False, away=True))
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
                    return Completion(response, name, attempts, meter.answered(response))
            live.reset()
        raise _no_answer(failures, request.timeout)

    async def _ask(self, tenant_id: UUID, target: Target, request: LLMRequest, ear: "_Ear", left: float) -> LLMResponse:
        kind, veil = self._plugins.providers[target.provider.spec.plugin][1], Veil(self._lookup.redactor, tenant_id)
        try:
            with narrowing_within():  # by a credential that is tied to hosts
                async with asyncio.timeout(left):
                    credential = await self._credential(tenant_id, target.provider)
                    async with self._pool.borrow(tenant_id, target.provider, kind, credential) as (provider, slots), slots:
                        shown = veil.live(ear)
                        response = veil.response(await provider.complete(veil.request(request), shown.text))
                        shown.end()
                        return msgspec.structs.replace(response, usage=credible(response.usage))
        except TimeoutError as error:
            raise ProviderUnavailable(f"no answer within {left:.0f} s", in_doubt=True) from error
        except (ProviderRefused, ProviderUnavailable) as error:
            veil.error(error)
            raise
        # A provider plugin is a stranger's code: its defect counts as this model being away, is logged, and fallbacks go on.
        except Exception as error:
            log.exception("llm.provider_broke", provider=target.provider.metadata.name, plugin=target.provider.spec.plugin)
            told = veil.text(f"the plugin {target.provider.spec.plugin} broke: {type(error).__name__}: {error}")
            raise ProviderUnavailable(told, in_doubt=True) from error

    async def _credential(self, tenant_id: UUID, provider: ModelProvider) -> str | None:
        """What the provider is opened with, as it is now."""
        found = provider.spec.credentials
        if found is None or not self._lookup.is_set(found):
            return None
        try:
            return await self._lookup.value(tenant_id, found)
        except HansaError as error:
            if passes(error):
                raise CredentialAway(error.detail, hint=error.hint, retry_after=error.retry_after) from error
            raise ProviderRefused(error.detail, hint=error.hint) from error


def _no_answer(failures: Sequence[_Failure], timeout: float) -> ProviderError | OverBudget:
    over = next((failure.over for failure in failures if failure.over is not None), None)
    if over is not None and all(failure.final for failure in failures):
        return over
    told = "no model answered: " + ("; ".join(dict.fromkeys(failure.text for failure in failures)) or f"nothing within {timeout:g} s")
    if failures and all(failure.final for failure in failures):
        return ProviderRefused(told, hint="`hansa models` shows which can be used.")
    if any(failure.away for failure in failures):
        return CredentialAway(told, hint="The run goes on when secrets can be read again; see docs/secrets.md.", retry_after=5.0)
    return ProviderUnavailable(told, hint="`hansa models` shows which can be used; runs may be started again later.")


class AgentModel:
    """One agent's model with its fallbacks, bound to the providers as they were when the run was loaded."""

    def __init__(self, gateway: Gateway, tenant_id: UUID, targets: Sequence[Target]) -> None:
        self._gateway = gateway
        self._tenant_id = tenant_id
        self._targets = targets

    async def complete(self, request: LLMRequest, live: LiveText, meter: Meter | None = None) -> Completion:
        return await self._gateway.complete(self._tenant_id, self._targets, request, live, meter=meter or FreeMeter())


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
async def open_gateway(plugins: Plugins, http: HttpClient, data_dir: Path, *, lookup: Lookup) -> AsyncIterator[Gateway]:
    """A gateway whose providers are closed at the end. Credentials are looked up by `lookup`."""
    async with open_pool(ProviderServices(http=http, data_dir=data_dir)) as pool:
        yield Gateway(plugins, pool, lookup)
