"""The oracle for lost tails: does a provider take an answer that broke off for a whole one?

Knows only the SDK's contract of a provider, so that a broken provider can be shown to fail it.
"""

from doubles.llm_upstream import Kind, LLMUpstream
from hansa_sdk import LLMProvider, LLMRequest, Message, ProviderUnavailable, Role

BROKEN_OFF = (Kind.HALF_STREAM, Kind.NO_TERMINATOR)


async def tails_lost(provider: LLMProvider, upstream: LLMUpstream) -> list[Kind]:
    """The ways of breaking off after which `provider` gave an answer as if it were whole; none for a good one."""
    lost: list[Kind] = []
    for kind in BROKEN_OFF:
        upstream.then(kind)
        request = LLMRequest((Message(Role.USER, "one two three four five six"),), model="m", timeout=10)
        try:
            await provider.complete(request, lambda piece: None)
        except ProviderUnavailable:
            continue
        lost.append(kind)
    return lost
