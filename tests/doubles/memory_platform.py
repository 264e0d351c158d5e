"""The control plane in memory, as far as the operator speaks to it, behind the operator's own transport: objects with owners, tenants,
references, secrets. What the real one answers is tested with the real one.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from hansa_operator.errors import Away
from hansa_operator.transport import Answer, Http


class MemoryPlatform(Http):
    """See the module. `objects`: (tenant, kind, name) -> manifest, `owners`: the same -> who."""

    def __init__(self) -> None:
        self.name = "the control plane"
        self.url = ""
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.owners: dict[tuple[str, str, str], str] = {}
        self.generations: dict[tuple[str, str, str], int] = {}
        self.statuses: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.tenants: dict[str, str] = {"default": "active"}
        self.spaces: dict[str, str] = {}
        self.secrets: dict[tuple[str, str], list[str]] = {}
        self.requests: list[tuple[str, str, int]] = []
        self.faults: list[Callable[[str, str, str], None]] = []
        self.refusals: dict[str, tuple[str, str]] = {}
        """Name of an object -> code and message with which it is refused."""
        self.kept: dict[str, str] = {}
        """Name of an object -> code with which its deletion is refused."""
        self.away = False
        self._once: set[str] = set()

    async def ask(
        self, method: str, path: str, *, value: Any = None, headers: Mapping[str, str] | None = None, timeout: float = 30.0
    ) -> Answer:
        await asyncio.sleep(0)
        if self.away:
            raise Away(self.name, "no answer (made up)")
        for fault in tuple(self.faults):
            fault("before", method, path)
        body: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(value)) if value is not None else {}
        self.requests.append((method, path, len(body.get("objects", ()))))
        status, answer = self._do(method, urlsplit(path), body, headers or {})
        for fault in tuple(self.faults):
            fault("after", method, path)
        return Answer(status, json.dumps(answer).encode())

    def applied(self, name: str) -> int:
        """How often an object was made or changed."""
        return sum(count for (_, _, each), count in self.generations.items() if each == name)

    def _do(self, method: str, parts: Any, body: dict[str, Any], headers: Mapping[str, str]) -> tuple[int, Any]:
        path, query, tenant = parts.path, parse_qs(parts.query), headers.get("hansa-tenant", "default")
        who = body.get("origin", "")
        if tenant not in self.tenants:
            return 404, {"detail": f"there is no tenant {tenant!r}"}
        if self.tenants[tenant] != "active":
            return 409, {"detail": f"the tenant {tenant!r} is {self.tenants[tenant]}: nobody acts in it"}
        match method, path:
            case "GET", "/readyz":
                return 200, {}
            case "GET", "/v1/whoami":
                return 200, {"tenant": "default"}
            case "POST", "/v1/objects:apply":
                results = [self._apply(each["manifest"], who) for each in body["objects"]]
                return 200, {"results": results, "failed": sum(each["action"] == "failed" for each in results)}
            case "POST", "/v1/objects:delete":
                return 200, {"results": [self._delete(tenant, each, who) for each in body["objects"]], "failed": 0}
            case "GET", "/v1/tenants":
                return 200, {"data": [self._tenant(name) for name in sorted(self.tenants)], "has_more": False}
            case "GET", "/v1/objects":
                kind, own = query["kind"][0], query.get("origin", [""])[0]
                found = [self._stored(key) for key in sorted(self.objects) if key[:2] == (tenant, kind)]
                return 200, {"data": [each for each in found if not own or each["origin"] == own], "has_more": False}
            case "POST", "/v1/secrets":
                if headers.get("idempotency-key", "") not in self._once:
                    self._once.add(headers.get("idempotency-key", ""))
                    self.secrets.setdefault((tenant, body["name"]), []).append(body["value"])
                return 201, {}
            case _:
                return self._one(method, [unquote(each) for each in path.split("/")[2:]], tenant)

    def _one(self, method: str, words: list[str], tenant: str) -> tuple[int, Any]:
        match method, words:
            case "GET", ["tenants", name] if name in self.tenants:
                return 200, self._tenant(name)
            case "GET", ["objects", kind, name] if (tenant, kind, name) in self.objects:
                return 200, self._stored((tenant, kind, name))
            case "DELETE", ["secrets", name] if (tenant, name) in self.secrets:
                del self.secrets[tenant, name]
                return 204, {}
            case _:
                return 404, {"detail": "there is no such thing"}

    def _apply(self, manifest: dict[str, Any], who: str) -> dict[str, Any]:
        kind, name = str(manifest["kind"]), str(manifest["metadata"]["name"])
        namespace = str(manifest["metadata"].get("namespace", "default"))
        tenant = name if kind == "Tenant" else self.spaces.get(namespace, namespace)
        key = (tenant, kind, name)

        def failed(code: str, message: str) -> dict[str, Any]:
            return {"kind": kind, "name": name, "action": "failed", "errors": [{"path": "", "code": code, "message": message}]}

        if name in self.refusals:
            return failed(*self.refusals[name])
        if kind != "Tenant" and tenant not in self.tenants:
            return failed("reference", f"there is no tenant {tenant!r}")
        if self.owners.get(key, who) != who:
            return failed("conflict", f"it is managed by {self.owners[key]}")
        missing = self._missing(tenant, manifest)
        if missing:
            return failed("reference", f"there is no {missing}")
        if kind == "Tenant":
            self.tenants[name] = "active"
            self.spaces = {space: each for space, each in self.spaces.items() if each != name}
            self.spaces |= dict.fromkeys(manifest["spec"].get("namespaces") or [name], name)
        same = self.objects.get(key) == manifest
        if not same:
            self.generations[key] = self.generations.get(key, 0) + 1
        self.objects[key], self.owners[key] = manifest, who
        revision = {"revision": self.generations[key]} if kind == "Agent" else {}
        status = {"status": self.statuses[key]} if key in self.statuses else {}
        action = "unchanged" if same else "created" if self.generations[key] == 1 else "configured"
        return {"kind": kind, "name": name, "action": action, "tenant": tenant, **revision, **status}

    def _missing(self, tenant: str, manifest: dict[str, Any]) -> str:
        if manifest["kind"] != "Agent":
            return ""
        providers = [each for (owner, kind, _), each in self.objects.items() if (owner, kind) == (tenant, "ModelProvider")]
        aliases = {alias for each in providers for model in each["spec"]["models"] for alias in model.get("aliases", ())}
        alias = manifest["spec"].get("model", {}).get("alias")
        if alias and alias not in aliases:
            return f"model {alias}"
        servers = {name for owner, kind, name in self.objects if (owner, kind) == (tenant, "ToolServer")}
        return next(
            (
                f"ToolServer {use['toolServer']}"
                for use in manifest["spec"].get("tools", ())
                if use.get("toolServer", "") not in {"", *servers}
            ),
            "",
        )

    def _delete(self, tenant: str, what: dict[str, Any], who: str) -> dict[str, Any]:
        kind, name = what["kind"], what["name"]
        key = (name if kind == "Tenant" else tenant, kind, name)
        if name in self.kept:
            return {"kind": kind, "name": name, "action": "failed", "errors": [{"code": self.kept[name], "message": "it is needed"}]}
        if self.owners.get(key, who) != who:
            return {"kind": kind, "name": name, "action": "failed", "errors": [{"code": "conflict", "message": "it is another's"}]}
        if kind == "Tenant" and name in self.tenants:
            if self.objects.get(key, {}).get("spec", {}).get("deletionPolicy", "Retain") == "Retain":
                self.tenants[name] = "archived"
            else:
                del self.tenants[name]
                for each in [each for each in self.objects if each[0] == name]:
                    del self.objects[each]
        self.owners.pop(key, None)
        return {"kind": kind, "name": name, "action": "deleted" if self.objects.pop(key, None) else "absent"}

    def _tenant(self, name: str) -> dict[str, Any]:
        return {"name": name, "state": self.tenants[name], "conditions": []}

    def _stored(self, key: tuple[str, str, str]) -> dict[str, Any]:
        _, kind, name = key
        return {
            "kind": kind,
            "name": name,
            "manager": "kubernetes",
            "origin": self.owners[key],
            "manifest": self.objects[key],
            "status": self.statuses.get(key),
        }
