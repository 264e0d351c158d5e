"""How much a tenant may use: the part of a Tenant that bounds it."""

from typing import Annotated, Literal

from msgspec import Meta

from hansa_crds.parts import Currency, Part


class TenantBudget(Part, frozen=True, kw_only=True):
    """How much money a tenant's models may cost, by the prices of their ModelProviders; never more, whoever asks at the same time."""

    amount: Annotated[float, Meta(ge=0, le=1_000_000_000, description="Most that all its calls of models may cost in a period.")]
    currency: Annotated[
        Currency, Meta(description="Currency of the amount, such as `EUR`; a model whose prices name another one is not asked.")
    ]
    period: Annotated[
        Literal["day", "week", "month"], Meta(description="Calendar period of the amount, in UTC; a week begins on Monday.")
    ] = "month"
    on_limit: Annotated[
        Literal["suspend", "reject"],
        Meta(
            description=(
                "What happens when a call does not fit: `suspend` holds its run until the next period or a larger amount, then it goes on"
                " by itself; `reject` fails the run, and once nothing is left further runs are answered with 429."
            )
        ),
    ] = "suspend"
    lost_calls: Annotated[
        Literal["charge", "release"],
        Meta(
            description=(
                "What a call counts whose answer was lost, because its worker died or it took too long: `charge` the most it can have cost,"
                " so that the provider's bill stays within the amount too; `release` nothing."
            )
        ),
    ] = "charge"
    warn_at: Annotated[int, Meta(ge=1, le=100, description="Percent of the amount from which on its use is shown as a warning.")] = 80


class MessagingQuotas(Part, frozen=True, kw_only=True):
    """What NATS lets the tenant's own programs have; the server itself refuses what goes beyond."""

    connections: Annotated[int, Meta(ge=0, le=100_000, description="Most connections of its own programs at once; 0: none gets in.")] = 100
    subscriptions: Annotated[int, Meta(ge=1, le=100_000, description="Most subscriptions of one connection.")] = 100
    payload_bytes: Annotated[int, Meta(ge=1, le=1_048_576, description="Most bytes of one message.")] = 65_536


class TenantQuotas(Part, frozen=True, kw_only=True):
    """Bounds of what a tenant may use."""

    concurrent_runs: Annotated[
        int, Meta(ge=0, le=1_000_000, description="Most runs worked on at once, over all workers; further ones wait; 0: no bound.")
    ] = 0
    requests_per_second: Annotated[
        int, Meta(ge=0, le=100_000, description="Most requests a second to the API; further ones are answered with 429; 0: no bound.")
    ] = 0
    agents: Annotated[int, Meta(ge=0, le=1_000_000, description="Most Agent objects; further ones are not applied; 0: no bound.")] = 0
    storage_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=2**53 - 1,
            description=(
                "Most bytes of large inputs, outputs and results that are kept, each once, in the database or the artifact store; 0: no"
                " bound. When they are reached no further run is accepted and nothing large is taken; runs under way still write."
            ),
        ),
    ] = 0
    tokens_per_day: Annotated[
        int,
        Meta(
            ge=0,
            le=2**53 - 1,
            description=(
                "Most tokens (read and written by its models) of a day in UTC; 0: no bound. A call that does not fit is treated as"
                " `budget.onLimit` says, and refused where there is no budget."
            ),
        ),
    ] = 0
    messages_per_day: Annotated[
        int,
        Meta(
            ge=0,
            le=2**53 - 1,
            description=(
                "Most messages of a day in UTC that its runs and programs send: events, and calls of agents by agents; 0: no bound. Further"
                " events are answered with 429; a run is told that its call was not made, or fails when it publishes."
            ),
        ),
    ] = 0
    budget: Annotated[TenantBudget | None, Meta(description="Most that its models may cost; left out: no bound.")] = None
    messaging: Annotated[MessagingQuotas, Meta(description="Bounds of its own programs on NATS.")] = MessagingQuotas()
