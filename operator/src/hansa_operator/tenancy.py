"""What a Tenant has in the cluster: its namespaces and what stands in them, and workers of its own where it asks for them.

Only what differs is written, by server-side apply. Namespaces are removed only if they were made here.
"""

import logging
from collections.abc import Sequence
from typing import Any

from hansa_operator.conditions import Said, Verdict, say
from hansa_operator.desk import Desk
from hansa_operator.errors import Clash, Missing, Refused
from hansa_operator.index import Space, namespaces_of
from hansa_operator.model import TENANT_LABEL, Found, inner
from hansa_operator.namespaces import MADE_FOR, Child, children, differs, reserved, space, worker, worker_name

log = logging.getLogger(__name__)


class Tenancy:
    """`namespace`: the operator's own; `shared`: the Deployment in it that dedicated ones are copied from; `subject`: what the API server
    calls the operator."""

    def __init__(self, desk: Desk, *, namespace: str, shared: str, subject: str) -> None:
        self._cluster = desk.cluster
        self._index = desk.index
        self._events = desk.events
        self._metrics = desk.metrics
        self._subject = subject
        self._namespace = namespace
        self._shared = shared

    def names(self, found: Found) -> tuple[str, ...]:
        """The namespaces that a Tenant claims."""
        return namespaces_of(found)

    def held(self, found: Found) -> tuple[str, ...]:
        """Those that it had when its status was last written, or has by their label."""
        told: Sequence[Any] = found.status_value().get("namespaces") or ()
        mine = [each.name for each in self._index.spaces.values() if each.tenant == found.key.name]
        return tuple(dict.fromkeys([*map(str, told), *mine]))

    def objection(self, found: Found) -> Verdict | None:
        """Why a Tenant can't have the namespaces that it claims."""
        for name in self.names(found):
            if reserved(name, self._namespace):
                text = f"the namespace {name} is Kubernetes' or the platform's own; take it out of spec.namespaces"
                return Verdict("False", "NamespaceReserved", text, stalled=True)
            holder = self._index.holder(name)
            if holder is not None and holder.key != found.key:
                text = f"the Tenant {holder.key.name} claimed the namespace {name} first; take it out of one of them"
                return Verdict("False", "NamespaceTaken", text, stalled=True)
        return None

    async def provide(self, found: Found) -> Said:
        """Have all be there that a Tenant has in the cluster; the condition that says so."""
        wrong: list[str] = []
        spec, repaired = found.spec_value(), list[str]()
        agents: int | None = inner(spec, "quotas").get("agents")
        fresh = not found.status_value().get("namespaces")
        for name in self.names(found):
            try:
                await self._space(found, name)
                for child in children(found.key.name, name, agents=agents, operator=self._subject):
                    if await self._ensure(child):
                        repaired.append(child.what)
            except Refused as error:
                wrong.append(error.message)
        for name in self.held(found):
            if name not in self.names(found):
                await self._withdraw(found, name)
        try:
            repaired += await self._workers(found, dedicated=inner(spec, "isolation").get("workers") == "Dedicated")
        except Refused as error:
            wrong.append(error.message)
        if repaired and not fresh and found.status_value().get("observedGeneration") == found.generation:
            self._metrics.drift.inc(len(repaired))
            self._events.tell(found, "Warning", "DriftCorrected", f"set right: {', '.join(repaired)}")
        if wrong:
            return say("NamespacesReady", "False", "NamespaceNotMade", "; ".join(wrong))
        return say("NamespacesReady", "True", "NamespacesMade", f"ready: {', '.join(self.names(found))}")

    async def withdraw(self, found: Found, *, spaces: bool) -> None:
        """Remove what a Tenant has in the cluster; with `spaces` also the namespaces that were made for it, and all in them."""
        if self._shared:
            await self._cluster.delete(self._worker_path(found.key.name))
        for name in dict.fromkeys((*self.names(found), *self.held(found))):
            await self._withdraw(found, name, remove=spaces)

    async def _withdraw(self, found: Found, name: str, *, remove: bool = False) -> None:
        known = self._index.spaces.get(name)
        if known is None or known.tenant != found.key.name:
            return
        path = f"/api/v1/namespaces/{name}"
        try:
            there = await self._cluster.get(path)
        except Missing:
            self._index.remove_space(name)
            return
        made_for = inner(there, "metadata", "annotations").get(MADE_FOR)
        if remove and made_for == found.uid:
            await self._cluster.delete(path, uid=there["metadata"]["uid"])
            self._metrics.writes.labels("child").inc()
            return
        for child in children(found.key.name, name, agents=None, operator=self._subject):
            await self._cluster.delete(child.path)
            self._metrics.writes.labels("child").inc()
        patch = {"metadata": {"uid": there["metadata"]["uid"], "labels": {TENANT_LABEL: None}}}
        self._index.put_space(space_of(await self._cluster.merge(path, patch)))

    async def _space(self, found: Found, name: str) -> None:
        """Have a namespace be there and say whose it is."""
        wanted = space(found.key.name, name)
        known = self._index.spaces.get(name)
        if known is None:
            made = {**wanted, "metadata": {**wanted["metadata"], "annotations": {MADE_FOR: found.uid}}}
            try:
                body = await self._cluster.create("/api/v1/namespaces", made)
            except Clash:
                body = await self._cluster.get(f"/api/v1/namespaces/{name}")
            else:
                self._metrics.writes.labels("child").inc()
            known = space_of(body)
            self._index.put_space(known)
        if known.deleting:
            raise Refused("the API server", 409, f"the namespace {name} is being deleted; it is made anew when it is gone")
        if known.tenant != found.key.name:
            body = await self._cluster.apply(f"/api/v1/namespaces/{name}", wanted)
            self._metrics.writes.labels("child").inc()
            self._index.put_space(space_of(body))

    async def _ensure(self, child: Child) -> bool:
        """Have an object be as it should; whether that took a write."""
        try:
            there: dict[str, Any] | None = await self._cluster.get(child.path)
        except Missing:
            there = None
        if there is not None and not differs(child.body, there):
            return False
        if there is not None and child.body.get("roleRef", there.get("roleRef")) != there.get("roleRef"):
            await self._cluster.delete(child.path)  # what it binds can't be changed
            there = None
        after = await self._cluster.apply(child.path, child.body)
        self._metrics.writes.labels("child").inc()
        return there is None or after["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"]

    async def _workers(self, found: Found, *, dedicated: bool) -> list[str]:
        if not self._shared:
            return []
        if not dedicated:
            path = self._worker_path(found.key.name)
            try:
                await self._cluster.get(path)
            except Missing:
                return []
            await self._cluster.delete(path)
            return []
        shared = await self._cluster.get(f"/apis/apps/v1/namespaces/{self._namespace}/deployments/{self._shared}")
        child = worker(found.key.name, shared, self._namespace)
        return [child.what] if await self._ensure(child) else []

    def _worker_path(self, tenant: str) -> str:
        return f"/apis/apps/v1/namespaces/{self._namespace}/deployments/{worker_name(tenant)}"


def space_of(body: dict[str, Any]) -> Space:
    """What is kept of a namespace."""
    meta = body["metadata"]
    labels = inner(meta, "labels")
    deleting = bool(meta.get("deletionTimestamp"))
    return Space(meta["name"], meta["uid"], int(meta["resourceVersion"]), str(labels.get(TENANT_LABEL, "")), deleting)
