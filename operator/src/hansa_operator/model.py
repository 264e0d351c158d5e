"""Objects of the cluster as the operator keeps them: what it needs of them and no more, for there may be many.

Knows nothing of HTTP or kopf. `Key` names an object, `Found` is what was last seen of it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast

import msgspec

from hansa_crds import API_VERSION, GROUP, KINDS, VERSION

FINALIZER = "hansa.dev/operator"
RECONCILE = "hansa.dev/reconcile"
REQUESTED_AT = "hansa.dev/requestedAt"
RELEASE = "hansa.dev/finalizer"
OURS = (RECONCILE, REQUESTED_AT, RELEASE)
"""The annotations of users' objects that are read. None is ever written."""
SECRET_LABEL = "hansa.dev/secret"  # noqa: S105
TENANT_LABEL = "hansa.dev/tenant"
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "hansa-operator"

Status = Literal["True", "False", "Unknown"]


class Key(NamedTuple):
    """Which object: `namespace` is empty for kinds of the whole cluster."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    @property
    def path(self) -> str:
        """Where the API server keeps it."""
        return f"{collection(self.kind, self.namespace)}/{self.name}"


def collection(kind: str, namespace: str = "") -> str:
    """Where the API server keeps a kind, in one namespace or everywhere."""
    place = f"/namespaces/{namespace}" if namespace else ""
    if kind == "Namespace":
        return "/api/v1/namespaces"
    return f"/apis/{GROUP}/{VERSION}{place}/{KINDS[kind].plural}"


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    """A condition as Kubernetes has it."""

    type: str
    status: Status
    reason: str
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0


class Found(msgspec.Struct, frozen=True):
    """An object as it was last seen. `version` orders what is seen; `spec` and `status` are JSON texts; `notes`: our annotations."""

    key: Key
    uid: str
    version: int
    generation: int
    created: str
    deleting: bool
    finalizers: tuple[str, ...]
    labels: Mapping[str, str]
    notes: Mapping[str, str]
    spec: bytes
    status: bytes

    @property
    def held(self) -> bool:
        """Whether it stays until the operator lets it go."""
        return FINALIZER in self.finalizers

    @property
    def disabled(self) -> bool:
        """Whether somebody wants it left alone."""
        return self.notes.get(RECONCILE) == "disabled"

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What a reconcile follows from, of the object itself: as long as this is the same there is nothing new to do, unless the
        object is held no longer. Most are held by the reconcile that is under way, and that is no news to it."""
        return (self.uid, self.generation, self.deleting, tuple(sorted(self.labels.items())), tuple(sorted(self.notes.items())))

    def spec_value(self) -> dict[str, Any]:
        """The spec as plain data."""
        return inner(msgspec.json.decode(self.spec))

    def status_value(self) -> dict[str, Any]:
        """The status as plain data."""
        return inner(msgspec.json.decode(self.status))

    def manifest(self) -> dict[str, Any]:
        """What the control plane is given of it. Annotations are Kubernetes' and its tools' affair and stay there."""
        metadata: dict[str, Any] = {"name": self.key.name}
        if self.key.namespace:
            metadata["namespace"] = self.key.namespace
        if self.labels:
            metadata["labels"] = dict(self.labels)
        return {"apiVersion": API_VERSION, "kind": self.key.kind, "metadata": metadata, "spec": self.spec_value()}


NOTHING: Mapping[str, str] = MappingProxyType({})


def inner(value: Any, *names: str) -> dict[str, Any]:
    """The object below these names; empty where there is none."""
    for name in names:
        value = cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def found_of(kind: str, body: Mapping[str, Any]) -> Found:
    """What is kept of an object that the API server has answered."""
    meta = body["metadata"]
    annotations = inner(meta, "annotations")
    return Found(
        key=Key(kind, meta.get("namespace", ""), meta["name"]),
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        generation=int(meta.get("generation", 0)),
        created=meta.get("creationTimestamp") or "",
        deleting=bool(meta.get("deletionTimestamp")),
        finalizers=tuple(meta.get("finalizers") or ()),
        labels=inner(meta, "labels") or NOTHING,
        notes={name: str(annotations[name]) for name in OURS if name in annotations} or NOTHING,
        spec=msgspec.json.encode(body.get("spec") or {}),
        status=msgspec.json.encode(body.get("status") or {}),
    )
