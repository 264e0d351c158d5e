"""An API server of Kubernetes in memory, as far as the operator's core speaks to it, behind the operator's own transport.

Keeps versions, generations, finalizers, the status apart from the rest, preconditions and merge patches as the real one does. No schemas,
no field managers, no permissions: those are tested on a real one. `faults` are asked before and after each request is carried out.
"""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from hansa_operator.errors import Away
from hansa_operator.model import inner
from hansa_operator.transport import Answer, Http

Fault = Callable[[str, str, str], Answer | None]
"""Is given `before` or `after`, the method and the path; raises what is to happen, or gives what is answered instead of doing it."""


class MemoryCluster(Http):
    """See the module. `objects`: path -> object."""

    def __init__(self) -> None:
        self.name = "the API server"
        self.url = ""
        self.objects: dict[str, dict[str, Any]] = {}
        self.writes: list[tuple[str, str]] = []
        self.listeners: list[Callable[[str, str, dict[str, Any]], None]] = []
        self.faults: list[Fault] = []
        self.away = False
        self._version = 0
        self.put("/api/v1/namespaces/kube-system", {"kind": "Namespace", "metadata": {"name": "kube-system"}})

    # ------------------------------------------------------------------------------------------- what tests do to it

    def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object, or change what is not its status, as `kubectl apply` would."""
        old = self.objects.get(path)
        body = copy.deepcopy(dict(body))
        meta = body.setdefault("metadata", {})
        meta.setdefault("name", path.rsplit("/", 1)[-1])
        if old is None:
            meta |= {"uid": f"uid-{self._version + 1}", "generation": 1, "creationTimestamp": f"2026-11-30T00:00:{self._version % 60:02}Z"}
            body.setdefault("status", {"observedGeneration": -1} if "/hansa.dev/" in path else {})
            if "/namespaces/" in path and not path.startswith("/api/v1/namespaces/"):
                meta["namespace"] = path.split("/namespaces/")[1].split("/")[0]
        else:
            kept = old["metadata"]
            meta |= {name: kept[name] for name in ("uid", "generation", "creationTimestamp", "namespace", "finalizers") if name in kept}
            body["status"] = old.get("status")
            if body.get("spec") != old.get("spec"):
                meta["generation"] += 1
        return self._keep(path, body, "MODIFIED" if old is not None else "ADDED")

    def remove(self, path: str) -> None:
        """Delete an object: at once, or when its finalizers are gone."""
        found = self.objects[path]
        if found["metadata"].get("finalizers"):
            if not found["metadata"].get("deletionTimestamp"):
                found = copy.deepcopy(found)
                found["metadata"]["deletionTimestamp"] = "2026-11-30T00:01:00Z"
                found["metadata"]["generation"] += 1
                self._keep(path, found, "MODIFIED")
            return
        del self.objects[path]
        self._tell("DELETED", path, found)
        if found.get("kind") == "Namespace":
            for inside in [each for each in self.objects if f"/namespaces/{path.rsplit('/', 1)[-1]}/" in each]:
                self.remove(inside)

    def status(self, path: str) -> dict[str, Any]:
        """An object's status."""
        return self.objects[path].get("status") or {}

    def condition(self, path: str, type_: str = "Ready") -> tuple[str, str]:
        """Status and reason of a condition; two empty texts if there is none."""
        for each in self.status(path).get("conditions") or ():
            if each["type"] == type_:
                return each["status"], each["reason"]
        return "", ""

    def events(self) -> list[tuple[str, str]]:
        """(name of the object, reason) of all Events."""
        found = [body for path, body in self.objects.items() if "/events/" in path]
        return [(body["involvedObject"]["name"], body["reason"]) for body in found]

    # ---------------------------------------------------------------------------------------------- what the operator asks

    async def ask(
        self, method: str, path: str, *, value: Any = None, headers: Mapping[str, str] | None = None, timeout: float = 30.0
    ) -> Answer:
        await asyncio.sleep(0)
        if self.away:
            raise Away(self.name, "no answer (made up)")
        for fault in tuple(self.faults):
            refused = fault("before", method, path)
            if refused is not None:
                return refused
        parts = urlsplit(path)
        body: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(value)) if value is not None else {}
        status, answer = self._do(method, parts.path, body, (headers or {}).get("content-type", ""), parse_qs(parts.query))
        for fault in tuple(self.faults):
            fault("after", method, path)
        return Answer(status, json.dumps(answer).encode())

    async def lines(self, path: str, *, silence: float) -> AsyncIterator[bytes]:
        await asyncio.sleep(3600)
        yield b""

    def _do(self, method: str, path: str, body: dict[str, Any], kind: str, query: Mapping[str, list[str]]) -> tuple[int, Any]:
        if path in ("/version", "/readyz"):
            return 200, {}
        if path.endswith("/selfsubjectreviews"):
            return 201, {"status": {"userInfo": {"username": "operator"}}}
        if method == "GET":
            return self._get(path, query)
        self.writes.append((method, path))
        if method == "POST":
            place = f"{path}/{body['metadata']['name']}"
            return (409, {"message": "already exists"}) if place in self.objects else (201, self.put(place, body))
        whole = path.removesuffix("/status")
        found = self.objects.get(whole)
        if method == "PATCH" and kind.startswith("application/apply-patch"):
            return self._apply(whole, found, body)
        if found is None:
            return 404, {"message": f"{whole} not found"}
        if method == "DELETE":
            if body.get("preconditions", {}).get("uid", found["metadata"]["uid"]) != found["metadata"]["uid"]:
                return 409, {"message": "the UID in the precondition is another"}
            self.remove(whole)
            return 200, {}
        meta = body.get("metadata", {})
        for name in ("uid", "resourceVersion"):
            if name in meta and meta[name] != found["metadata"][name]:
                return 409, {"message": f"the object has been modified ({name})"}
        if method == "PUT":
            return 200, self._keep(whole, {**found, **body}, "MODIFIED")
        return self._patch(whole, found, body, of_status=whole != path)

    def _get(self, path: str, query: Mapping[str, list[str]]) -> tuple[int, Any]:
        if path in self.objects:
            return 200, self.objects[path]
        kind = path.rsplit("/", 1)[-1]
        parts = path.split("/")
        one = len(parts) > 2 and parts[-2] in ("namespaces", "agents", "tenants", "regions", "modelproviders", "toolservers", "leases")
        if one or any(
            each in path for each in ("/secrets/", "/resourcequotas/", "/limitranges/", "policies/", "bindings/", "/deployments/")
        ):
            return 404, {"message": f"{path} not found"}
        selector = query.get("labelSelector", [""])[0]
        inside = "/namespaces/" in path
        found = [
            body
            for place, body in self.objects.items()
            if place.rsplit("/", 2)[-2] == kind
            and (not inside or place.startswith(path))
            and (not selector or inner(body, "metadata", "labels").get(selector.split("=")[0]) == selector.split("=")[1])
        ]
        return 200, {"items": found, "metadata": {"resourceVersion": str(self._version)}}

    def _apply(self, path: str, found: dict[str, Any] | None, body: dict[str, Any]) -> tuple[int, Any]:
        if found is None:
            return 201, self.put(path, body)
        after = merged(found, body)
        return 200, found if after == found else self._keep(path, after, "MODIFIED")

    def _patch(self, path: str, found: dict[str, Any], body: dict[str, Any], *, of_status: bool) -> tuple[int, Any]:
        given: dict[str, Any] = {"status": body.get("status")} if of_status else {"metadata": inner(body, "metadata")}
        if not of_status:
            given["metadata"].pop("resourceVersion", None)
        after = merged(found, given)
        if after == found:
            return 200, found
        meta = after["metadata"]
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            del self.objects[path]
            self._tell("DELETED", path, after)
            return 200, after
        return 200, self._keep(path, after, "MODIFIED")

    def _keep(self, path: str, body: dict[str, Any], type_: str) -> dict[str, Any]:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        self.objects[path] = body
        self._tell(type_, path, body)
        return body

    def _tell(self, type_: str, path: str, body: dict[str, Any]) -> None:
        # Later, as on a wire: whoever has made the change has its answer before.
        body = copy.deepcopy(body)
        for listener in tuple(self.listeners):
            asyncio.get_running_loop().call_later(0.001, self._deliver, listener, (type_, path, body))

    def _deliver(self, listener: Callable[[str, str, dict[str, Any]], None], event: tuple[str, str, dict[str, Any]]) -> None:
        if listener in self.listeners:
            listener(*event)


def merged(old: Any, patch: Any) -> Any:
    """A merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    found: dict[str, Any] = copy.deepcopy(inner(old))
    for name, value in inner(patch).items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found
