"""The registry of kinds: how each is called, where it lives, and what `kubectl get` shows of it.

Knows the types of `model.py` and nothing of how objects are stored or served.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

from hansa_crds.model import Agent, HansaObject, ModelProvider, Region, Tenant, ToolServer
from hansa_crds.status import AgentStatus, ModelProviderStatus, RegionStatus, Status, TenantStatus, ToolServerStatus

Scope = Literal["Cluster", "Namespaced"]
StatusType = type[Status]


class Column(Struct, frozen=True):
    """One column of a table of objects. `path` is a Kubernetes JSONPath; a `wide` column shows only on request."""

    name: str
    path: str
    type: Literal["string", "integer", "number", "boolean", "date"] = "string"
    wide: bool = False


class Kind(Struct, frozen=True):
    """One kind of object: its names, its scope, its types, the columns of a table of them, and the fields that Kubernetes may select by."""

    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    scope: Scope
    type: type[HansaObject]
    status: StatusType
    columns: tuple[Column, ...] = ()
    selectable: tuple[str, ...] = ()


def _condition(type_: str) -> str:
    return f'.status.conditions[?(@.type=="{type_}")]'


READY = Column("Ready", f"{_condition('Ready')}.status")
REASON = Column("Reason", f"{_condition('Ready')}.reason")
TENANT = Column("Tenant", ".status.tenant", wide=True)
AGE = Column("Age", ".metadata.creationTimestamp", "date")

_ALL = (
    Kind(
        kind="Region",
        plural="regions",
        singular="region",
        short_names=("hreg",),
        scope="Cluster",
        type=Region,
        status=RegionStatus,
        columns=(
            READY,
            Column("Display Name", ".spec.displayName"),
            Column("Cordoned", ".spec.cordoned", "boolean"),
            REASON,
            AGE,
        ),
        selectable=(".spec.cordoned",),
    ),
    Kind(
        kind="Tenant",
        plural="tenants",
        singular="tenant",
        short_names=("hten",),
        scope="Cluster",
        type=Tenant,
        status=TenantStatus,
        columns=(
            READY,
            Column("Display Name", ".spec.displayName"),
            Column("Budget", ".spec.quotas.budget.amount", "number"),
            Column("Currency", ".spec.quotas.budget.currency", wide=True),
            Column("Isolated", f"{_condition('IsolationVerified')}.status"),
            Column("Workers", ".spec.isolation.workers", wide=True),
            Column("Namespaces", ".status.namespaces", wide=True),
            Column("Suspended", ".spec.suspend", "boolean"),
            REASON,
            AGE,
        ),
        selectable=(".spec.suspend", ".spec.isolation.workers", ".spec.deletionPolicy"),
    ),
    Kind(
        kind="ModelProvider",
        plural="modelproviders",
        singular="modelprovider",
        short_names=("hmp",),
        scope="Namespaced",
        type=ModelProvider,
        status=ModelProviderStatus,
        columns=(
            READY,
            Column("Plugin", ".spec.plugin"),
            Column("Endpoint", ".spec.endpoint", wide=True),
            TENANT,
            REASON,
            AGE,
        ),
        selectable=(".spec.plugin", ".status.tenant"),
    ),
    Kind(
        kind="ToolServer",
        plural="toolservers",
        singular="toolserver",
        short_names=("hts",),
        scope="Namespaced",
        type=ToolServer,
        status=ToolServerStatus,
        columns=(READY, Column("Endpoint", ".spec.endpoint"), Column("Tools", ".status.tools", "integer"), TENANT, REASON, AGE),
        selectable=(".spec.endpoint", ".status.tenant"),
    ),
    Kind(
        kind="Agent",
        plural="agents",
        singular="agent",
        short_names=("hag",),
        scope="Namespaced",
        type=Agent,
        status=AgentStatus,
        columns=(
            READY,
            Column("Runtime", ".spec.runtime.name"),
            Column("Model", ".spec.model['alias','ref']"),
            Column("Revision", ".status.revision.serving", "integer"),
            Column("Desired", ".status.revision.desired", "integer", wide=True),
            TENANT,
            Column("Suspended", ".spec.suspend", "boolean", wide=True),
            REASON,
            AGE,
        ),
        selectable=(".spec.runtime.name", ".spec.model.alias", ".spec.placement.pool", ".spec.suspend", ".status.tenant"),
    ),
)

KINDS: Mapping[str, Kind] = MappingProxyType({each.kind: each for each in _ALL})
"""All kinds by name, in the order in which objects are to be applied (what others refer to comes first)."""


def kind_of(found: HansaObject) -> Kind:
    """Give the kind of an object."""
    return KINDS[type(found).__name__]
