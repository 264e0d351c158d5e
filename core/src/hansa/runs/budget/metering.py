"""What a run's calls of models cost: reserved before, told to the journal after, so that it is settled with the step's own write.

A call that is stopped tells nothing: what is reserved for it is settled when its run is let go or taken over.
"""

import asyncio
from datetime import datetime
from typing import Any, Protocol

import msgspec

from hansa import clock
from hansa.errors import LimitExceeded
from hansa.llm.metering import OverBudget, Target, cost_of, most_input_tokens
from hansa.runs.model import Ask, Grant, Spend, Told, Unsent
from hansa_crds import ModelPrices
from hansa_sdk import LLMRequest, LLMResponse, RunFailed, Usage

LEAST_OUTPUT = 64
"""An answer is not cut below so many tokens to fit in what is left, unless it was to be shorter."""
LONGEST_WAIT = 20.0
"""How many seconds a call waits for what others have reserved and will hardly need."""
PAUSES = (0.05, 1.0)
HINT = "Raise quotas of the Tenant, take a cheaper model, or wait for the next period; `hansa budget` shows what is left."
MESSAGES_HINT = "Raise quotas.messagesPerDay of the Tenant, or wait; `hansa budget` shows what is left."


class Held(asyncio.CancelledError):
    """Nothing is left to spend: the run is to be held until there is. A cancellation, so that no plugin's `except` holds it up."""

    def __init__(self, told: Told) -> None:
        super().__init__(sentence(told))
        self.told = told


class Ledger(Protocol):
    """Where is reserved: the run's journal."""

    @property
    def metered(self) -> bool: ...

    async def reserve(self, ask: Ask) -> Grant: ...


class NothingLeft(OverBudget):
    """The most that a call may cost does not fit in what its tenant may spend."""

    def __init__(self, told: Told) -> None:
        super().__init__(sentence(told))
        self.told = told

    def consequence(self) -> BaseException:
        """What becomes of the run."""
        match self.told.limit:
            case "currency":
                return RunFailed(self.detail, code="limit_currency", hint="Give the prices in the budget's currency.")
            case _ if self.told.on_limit == "suspend":
                return Held(self.told)
            case "budget":
                return RunFailed(self.detail, code="limit_budget", hint=HINT)
            case _:
                return RunFailed(self.detail, code="limit_tokens_per_day", hint=HINT)


class StepMeter:
    """Implements `hansa.llm.metering.Meter` for one step. `spends`: what is to be counted for it."""

    def __init__(self, ledger: Ledger, agent: str, step: str) -> None:
        self._ledger = ledger
        self._ask = Ask(step, agent)
        self._prices = ModelPrices()
        self.spends: list[Spend] = []

    async def begin(self, target: Target, request: LLMRequest) -> LLMRequest:
        self._prices = prices = target.prices
        self._ask = msgspec.structs.replace(
            self._ask,
            model=target.ref,
            input_tokens=most_input_tokens(request),
            output_tokens=request.max_tokens,
            least=min(LEAST_OUTPUT, request.max_tokens),
            input_price=prices.input,
            output_price=prices.output,
            currency=prices.currency,
            lost_tokens=sum(spend.lost_tokens for spend in self.spends),
            lost_cost=sum(spend.lost_cost for spend in self.spends),
        )
        if not self._ledger.metered:
            return request
        granted = await self._patiently(min(request.timeout, LONGEST_WAIT))
        self._ask = msgspec.structs.replace(self._ask, output_tokens=granted)
        return msgspec.structs.replace(request, max_tokens=granted)

    async def _patiently(self, seconds: float) -> int:
        """Most tokens of the answer. Waits while others hold what is missing."""
        loop = asyncio.get_running_loop()
        give_up, pause = loop.time() + seconds, PAUSES[0]
        while True:
            grant = await self._ledger.reserve(msgspec.structs.replace(self._ask, last=loop.time() >= give_up))
            if grant.outcome == "granted" or grant.told is None:
                return grant.output_tokens
            if grant.outcome != "wait":
                raise NothingLeft(grant.told)
            await asyncio.sleep(min(pause, max(0.0, give_up - loop.time())))
            pause = min(pause * 1.5, PAUSES[1])

    def answered(self, response: LLMResponse) -> int:
        usage = response.usage
        if self._ledger.metered:
            # A provider that tells no usage, or half of it, would else be free of charge: the most it can be is counted.
            said = response.text or response.tool_calls or not usage.input_tokens
            usage = Usage(usage.input_tokens or self._ask.input_tokens, usage.output_tokens or (self._ask.output_tokens if said else 0))
        cost = cost_of(self._prices, usage.input_tokens, usage.output_tokens)
        self.spends.append(self._spend(calls=1, input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cost=cost))
        return cost

    def failed(self, *, lost: bool) -> None:
        ask = self._ask
        if not self._ledger.metered:
            self.spends.append(self._spend(lost_calls=int(lost)))
        elif lost:
            cost = cost_of(self._prices, ask.input_tokens, ask.output_tokens)
            self.spends.append(self._spend(lost_calls=1, lost_tokens=ask.input_tokens + ask.output_tokens, lost_cost=cost))
        else:
            self.spends.append(self._spend())

    def _spend(self, **counted: int) -> Spend:
        return Spend(self._ask.step, self._ask.agent, self._ask.model, **counted)


def sentence(told: Told) -> str:
    """What is said of a limit to people."""
    if told.limit == "currency":
        return f"the model's prices are in {told.other} and the tenant's budget is in {told.currency}, so it is not asked"
    until = f"{told.resets_at:%Y-%m-%d %H:%M} UTC"
    if told.limit == "budget":
        used, bound, needed, held = (f"{value / 1e6:g}" for value in (told.used, told.bound, told.needed, told.reserved))
        return (
            f"the tenant's budget is {bound} {told.currency} a {told.period} (quotas.budget): {used} is spent and {held} reserved, and the"
            f" call may cost {needed}; the next period begins {until}"
        )
    return (
        f"the tenant may use {told.bound} tokens a day (quotas.tokensPerDay): {told.used} are used and {told.reserved} reserved, and the"
        f" call may use {told.needed}; the next day begins {until}"
    )


def refusal_of(detail: Any) -> tuple[str, datetime]:
    """What is said to whoever would start a run of a tenant that has nothing left, and when it has again."""
    told = msgspec.convert(detail, Told, strict=False)
    if told.limit == "budget":
        used, bound = f"{told.used / 1e6:g}", f"{told.bound / 1e6:g}"
        text = f"the tenant has spent its budget: {used} of {bound} {told.currency} this {told.period} (quotas.budget)"
    else:
        text = f"the tenant has used {told.used} of {told.bound} tokens today (quotas.tokensPerDay)"
    return f"{text}; the next {told.period} begins {told.resets_at:%Y-%m-%d %H:%M} UTC", told.resets_at


def unsent_sentence(limit: Unsent) -> str:
    """What is said of a message that is one too many."""
    return (
        f"the tenant has sent {limit.used} of {limit.bound} messages today (quotas.messagesPerDay); the next day begins"
        f" {limit.resets_at:%Y-%m-%d %H:%M} UTC"
    )


def unsent_refusal(limit: Unsent) -> LimitExceeded:
    """What is said to whoever would send it."""
    pause = max(1.0, (limit.resets_at - clock.now()).total_seconds())
    return LimitExceeded(unsent_sentence(limit), hint=MESSAGES_HINT, retry_after=pause)
