"""What a tenant has in its namespaces: bounds, a wall, and who may do what there. Bodies for server-side apply. Pure.

Warning: workers of a tenant's own are not here but in the operator's namespace: they hold the platform's credentials.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

from hansa_operator.model import MANAGED_BY, MANAGER, TENANT_LABEL, inner

RESERVED = ("kube-", "hansa-system")
MADE_FOR = "hansa.dev/made-for"
"""Annotation of a namespace that the operator has made: the uid of the Tenant. Only such a one is ever deleted."""
WORKER_TENANT = "hansa.dev/worker-tenant"
RBAC = "rbac.authorization.k8s.io"


class Child(msgspec.Struct, frozen=True):
    """An object that belongs to a tenant: where its kind is kept, and how it should be."""

    collection: str
    body: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.body["metadata"]["name"])

    @property
    def path(self) -> str:
        """Where it is kept."""
        return f"{self.collection}/{self.name}"

    @property
    def what(self) -> str:
        """How people call it."""
        return f"{self.body['kind']} {self.body['metadata'].get('namespace', '')}/{self.name}".replace(" /", " ")


def reserved(namespace: str, own: str) -> bool:
    """Whether a namespace is nobody's to claim."""
    return namespace == own or any(namespace == each or (each.endswith("-") and namespace.startswith(each)) for each in RESERVED)


def labels(tenant: str) -> dict[str, str]:
    """The labels of all that is a tenant's."""
    return {MANAGED_BY: MANAGER, TENANT_LABEL: tenant}


def space(tenant: str, namespace: str) -> dict[str, Any]:
    """The namespace, as far as it is the operator's affair."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": namespace, "labels": {TENANT_LABEL: tenant, "pod-security.kubernetes.io/warn": "restricted"}},
    }


def children(tenant: str, namespace: str, *, agents: int | None, operator: str) -> Iterator[Child]:
    """All that stands in one namespace of a tenant. `agents`: its quota; `operator`: what the API server calls the operator."""
    core, rbac = f"/api/v1/namespaces/{namespace}", f"/apis/{RBAC}/v1/namespaces/{namespace}/rolebindings"
    # Without a quota of its own no Agent is counted here: until its controller has counted, a ResourceQuota refuses what it names.
    bounds = {"services.loadbalancers": "0", "services.nodeports": "0"}
    if agents is not None:
        bounds["count/agents.hansa.dev"] = str(agents)
    yield Child(f"{core}/resourcequotas", _body("v1", "ResourceQuota", tenant, namespace, {"spec": {"hard": bounds}}))
    limit = {"type": "Container", "default": {"memory": "512Mi"}, "defaultRequest": {"cpu": "100m", "memory": "128Mi"}}
    yield Child(f"{core}/limitranges", _body("v1", "LimitRange", tenant, namespace, {"spec": {"limits": [limit]}}))
    mine = {"namespaceSelector": {"matchLabels": {TENANT_LABEL: tenant}}}
    wall: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [mine]}]}
    path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
    yield Child(path, _body("networking.k8s.io/v1", "NetworkPolicy", tenant, namespace, {"spec": wall}))
    subject = {"apiGroup": RBAC, "kind": "User", "name": operator}
    yield Child(rbac, _binding("hansa-operator", "hansa-operator-secrets", tenant, namespace, subjects=[subject]))
    for verb in ("edit", "view"):
        names = (f"hansa:tenant:{tenant}:{verb}", f"hansa:namespace:{namespace}:{verb}")
        groups = [{"apiGroup": RBAC, "kind": "Group", "name": name} for name in names]
        yield Child(rbac, _binding(f"hansa-{verb}", f"hansa-tenant-{verb}", tenant, namespace, subjects=groups))


def worker(tenant: str, shared: Mapping[str, Any], namespace: str) -> Child:
    """The Deployment of a tenant's own workers: a copy of the shared one, started for it. `shared`: that, as the API server gives it."""
    template: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(shared["spec"]["template"]))
    marks = {name: text for name, text in inner(template, "metadata", "labels").items() if name != "hansa.dev/pool"}
    marks |= {WORKER_TENANT: tenant}
    notes = inner(template, "metadata", "annotations")
    template["metadata"] = {"labels": marks, **({"annotations": notes} if notes else {})}
    for container in template["spec"]["containers"]:
        others = [each for each in container.get("env") or () if each["name"] != "HANSA_WORKER_TENANT"]
        container["env"] = [*others, {"name": "HANSA_WORKER_TENANT", "value": tenant}]
    # How many there are may be somebody else's affair (an autoscaler): a number is no part of what is applied.
    spec = {"selector": {"matchLabels": {WORKER_TENANT: tenant}}, "template": template}
    meta = {"name": worker_name(tenant), "namespace": namespace, "labels": labels(tenant)}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}
    return Child(f"/apis/apps/v1/namespaces/{namespace}/deployments", body)


def worker_name(tenant: str) -> str:
    """How the Deployment of a tenant's own workers is called; within the 63 characters of a name, and never like another's."""
    name = f"hansa-worker-{tenant}"
    return name if len(name) <= 63 else f"{name[:54]}-{hashlib.sha256(tenant.encode()).hexdigest()[:8]}"


def differs(wanted: Any, there: Any) -> bool:
    """Whether something that is wanted is not so. What is there besides is others' affair, or a default."""
    if isinstance(wanted, dict) and isinstance(there, dict):
        has = cast("dict[str, Any]", there)
        return any(differs(value, has.get(name)) for name, value in cast("dict[str, Any]", wanted).items())
    if isinstance(wanted, list) and isinstance(there, list):
        mine, theirs = cast("list[Any]", wanted), cast("list[Any]", there)
        return len(mine) != len(theirs) or any(map(differs, mine, theirs))
    return wanted != there and not (wanted in ({}, []) and there is None)


def _body(version: str, kind: str, tenant: str, namespace: str, rest: dict[str, Any]) -> dict[str, Any]:
    meta = {"name": "hansa", "namespace": namespace, "labels": labels(tenant)}
    return {"apiVersion": version, "kind": kind, "metadata": meta, **rest}


def _binding(name: str, role: str, tenant: str, namespace: str, *, subjects: list[dict[str, str]]) -> dict[str, Any]:
    rest: dict[str, Any] = {"roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}, "subjects": subjects}
    body = _body(f"{RBAC}/v1", "RoleBinding", tenant, namespace, rest)
    body["metadata"]["name"] = name
    return body
