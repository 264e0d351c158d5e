"""What the platform reports of an object: the `status` of each kind in Kubernetes, written by the operator and by nobody else.

No field grows with what happens: what is long (runs, revisions, tools) is asked of the API. The words of conditions stand in
`conditions.py`.
"""

from typing import Annotated, Literal

from msgspec import Meta

from hansa_crds.parts import DnsLabel, Part

Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Moment = Annotated[str, Meta(max_length=64, extra_json_schema={"format": "date-time"})]


class Condition(Part, frozen=True, kw_only=True):
    """One thing that is so, or is not, and why."""

    type: Annotated[str, Meta(max_length=316, description="What the condition is about, such as `Ready`.")]
    status: Annotated[Literal["True", "False", "Unknown"], Meta(description="Whether it is so.")]
    reason: Annotated[str, Meta(min_length=1, max_length=1024, description="Why, in one word for programs.")]
    message: Annotated[str, Meta(max_length=32768, description="Why, in a sentence for people.")]
    last_transition_time: Annotated[Moment, Meta(description="Since when it has this status.")]
    observed_generation: Annotated[Count | None, Meta(description="Generation of the object that it is about.")] = None


class Status(Part, frozen=True, kw_only=True):
    """What is reported of every kind."""

    observed_generation: Annotated[
        Annotated[int, Meta(ge=-1, le=2**53 - 1)] | None,
        Meta(description="Generation of the object that was judged last; -1: none yet."),
    ] = None
    conditions: Annotated[tuple[Condition, ...], Meta(max_length=16, description="What is so and what is not, by `type`.")] = ()
    last_handled_reconcile_at: Annotated[
        Annotated[str, Meta(max_length=253)] | None,
        Meta(description="The annotation `hansa.dev/requestedAt` that was obeyed last: who wrote it can wait for its echo."),
    ] = None


class TenantsStatus(Status, frozen=True, kw_only=True):
    """What is reported of a kind that belongs to a tenant."""

    tenant: Annotated[DnsLabel | None, Meta(description="The tenant whose it is, by its namespace.")] = None


class Revisions(Part, frozen=True, kw_only=True):
    """Which revision is meant, and which one runs are started with."""

    desired: Annotated[Count | None, Meta(description="Revision of the spec as it is written.")] = None
    serving: Annotated[
        Count | None, Meta(description="Revision that new runs are started with; an older one while the desired one is refused.")
    ] = None


class AgentStatus(TenantsStatus, frozen=True, kw_only=True):
    """What is reported of an Agent."""

    revision: Annotated[Revisions | None, Meta(description="Its revisions.")] = None


class TakenSecret(Part, frozen=True, kw_only=True):
    """A Secret of Kubernetes that was taken over as a secret of the tenant; never what is in it."""

    secret: Annotated[Annotated[str, Meta(max_length=253)] | None, Meta(description="Its name.")] = None
    version: Annotated[
        Annotated[str, Meta(max_length=128)] | None, Meta(description="Its version in Kubernetes that was taken over last.")
    ] = None


class ModelProviderStatus(TenantsStatus, frozen=True, kw_only=True):
    """What is reported of a ModelProvider."""

    credentials: Annotated[TakenSecret | None, Meta(description="The Secret that its `credentials` name, if there is one.")] = None


class ToolServerStatus(TenantsStatus, frozen=True, kw_only=True):
    """What is reported of a ToolServer."""

    tools: Annotated[Count | None, Meta(description="How many tools it offers that may be used.")] = None
    credentials: Annotated[TakenSecret | None, Meta(description="The Secret that its `credentials` name, if there is one.")] = None


class TenantStatus(Status, frozen=True, kw_only=True):
    """What is reported of a Tenant."""

    namespaces: Annotated[tuple[DnsLabel, ...], Meta(max_length=64, description="The namespaces that it holds.")] = ()


class RegionStatus(Status, frozen=True, kw_only=True):
    """What is reported of a Region."""
