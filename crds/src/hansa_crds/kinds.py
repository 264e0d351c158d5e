"""The registry of kinds: how each is called, where it lives, and what `kubectl get` shows of it.

Knows the types of `model.py` and nothing of how objects are stored or served.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

from hansa_crds.model import Agent, HansaObject, ModelProvider, Region, Tenant, ToolServer

Scope = Literal["Cluster", "Namespaced"]


class Column(Struct, frozen=True):
    """One column of a table of objects. `path` is a Kubernetes JSONPath; a `wide` column shows only on request."""

    name: str
    path: str
    type: Literal["string", "integer", "boolean", "date"] = "string"
    wide: bool = False


class Kind(Struct, frozen=True):
    """One kind of object: its names, its scope, its type and the columns of a table of them."""

    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    scope: Scope
    type: type[HansaObject]
    columns: tuple[Column, ...] = ()


READY = Column("Ready", '.status.conditions[?(@.type=="Ready")].status')
REASON = Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', wide=True)
AGE = Column("Age", ".metadata.creationTimestamp", "date")

_ALL = (
    Kind(
        kind="Region",
        plural="regions",
        singular="region",
        short_names=("hreg",),
        scope="Cluster",
        type=Region,
        columns=(
            READY,
            Column("Display Name", ".spec.displayName"),
            Column("Cordoned", ".spec.cordoned", "boolean"),
            REASON,
            AGE,
        ),
    ),
    Kind(
        kind="Tenant",
        plural="tenants",
        singular="tenant",
        short_names=("hten",),
        scope="Cluster",
        type=Tenant,
        columns=(
            READY,
            Column("Display Name", ".spec.displayName"),
            Column("Suspended", ".spec.suspend", "boolean"),
            REASON,
            AGE,
        ),
    ),
    Kind(
        kind="ModelProvider",
        plural="modelproviders",
        singular="modelprovider",
        short_names=("hmp",),
        scope="Namespaced",
        type=ModelProvider,
        columns=(
            READY,
            Column("Plugin", ".spec.plugin"),
            Column("Endpoint", ".spec.endpoint", wide=True),
            REASON,
            AGE,
        ),
    ),
    Kind(
        kind="ToolServer",
        plural="toolservers",
        singular="toolserver",
        short_names=("hts",),
        scope="Namespaced",
        type=ToolServer,
        columns=(READY, Column("Endpoint", ".spec.endpoint"), REASON, AGE),
    ),
    Kind(
        kind="Agent",
        plural="agents",
        singular="agent",
        short_names=("hag",),
        scope="Namespaced",
        type=Agent,
        columns=(
            READY,
            Column("Runtime", ".spec.runtime.name"),
            Column("Alias", ".spec.model.alias"),
            Column("Model", ".spec.model.ref"),
            Column("Suspended", ".spec.suspend", "boolean", wide=True),
            REASON,
            AGE,
        ),
    ),
)

KINDS: Mapping[str, Kind] = MappingProxyType({each.kind: each for each in _ALL})
"""All kinds by name, in the order in which objects are to be applied (what others refer to comes first)."""


def kind_of(found: HansaObject) -> Kind:
    """Give the kind of an object."""
    return KINDS[type(found).__name__]
