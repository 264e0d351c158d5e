"""What a call of a model can cost at most, and what the gateway tells of it. Knows no budget: whoever calls brings a meter."""

import math
from typing import Protocol

import msgspec

from hansa_crds import ModelPrices, ModelProvider
from hansa_sdk import LLMRequest, LLMResponse, Usage

TOKENS_OF_A_MESSAGE = 16
TOKENS_OF_TOOLS = 1024
"""What providers put around messages, and before the tools, that is not in the request."""
MOST_TOKENS = 1_000_000_000
"""No call takes more: a count above it is no count."""


class Target(msgspec.Struct, frozen=True):
    """One model that may answer: a provider's object and the model's name there."""

    provider: ModelProvider
    model: str

    @property
    def ref(self) -> str:
        """As agents write it: `provider/model`."""
        return f"{self.provider.metadata.name}/{self.model}"

    @property
    def prices(self) -> ModelPrices:
        """What it costs."""
        return next((model.prices for model in self.provider.spec.models if model.name == self.model), ModelPrices())


class OverBudget(Exception):
    """A model is not asked, because what its answer may cost does not fit in what is left. `detail` is for people."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Meter(Protocol):
    """Is told of every attempt to have one request answered, one after the other."""

    async def begin(self, target: Target, request: LLMRequest) -> LLMRequest:
        """Before a model is asked: the request as it may be made, perhaps with fewer `max_tokens`. Raises `OverBudget`."""
        ...

    def answered(self, response: LLMResponse) -> int:
        """It has answered: what that costs, in millionths."""
        ...

    def failed(self, *, lost: bool) -> None:
        """It has not. `lost`: perhaps it did, and what it cost is not known."""
        ...


class FreeMeter:
    """Counts nothing against anything."""

    def __init__(self) -> None:
        self._prices = ModelPrices()

    async def begin(self, target: Target, request: LLMRequest) -> LLMRequest:
        self._prices = target.prices
        return request

    def answered(self, response: LLMResponse) -> int:
        return cost_of(self._prices, response.usage.input_tokens, response.usage.output_tokens)

    def failed(self, *, lost: bool) -> None:
        """Nothing was counted."""


def cost_of(prices: ModelPrices, input_tokens: int, output_tokens: int) -> int:
    """What tokens cost, in millionths: a price is of a million tokens, so it is that of one in millionths. Rounded up."""
    return math.ceil(input_tokens * prices.input + output_tokens * prices.output)


def credible(usage: Usage) -> Usage:
    """What a provider tells, as far as it can be a count: what can't be, such as less than nothing, is not told (0)."""
    counts = (count if 0 <= count <= MOST_TOKENS else 0 for count in (usage.input_tokens, usage.output_tokens))
    return Usage(*counts)


def most_input_tokens(request: LLMRequest) -> int:
    """No fewer tokens than any model reads of a request: a token has at least a byte of UTF-8."""
    size = len(msgspec.json.encode((request.messages, request.tools, request.output_schema)))
    return size + TOKENS_OF_A_MESSAGE * (len(request.messages) + 1) + (TOKENS_OF_TOOLS if request.tools or request.output_schema else 0)
