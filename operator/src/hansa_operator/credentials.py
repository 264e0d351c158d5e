"""Kubernetes Secrets that objects name in `spec.credentials.secret`: taken over into their tenant's secret store, again when they change.

Only those that carry the label `hansa.dev/secret: "true"`: whoever may write a ModelProvider may have its credentials sent anywhere, and so
must not be able to name whatever Secret lies in the namespace. Values are held while they are sent and no longer, and never logged.
"""

import asyncio
import base64
import binascii
import logging
import random
from typing import Any
from urllib.parse import urlencode

import msgspec

from hansa_operator.conditions import Said, say
from hansa_operator.desk import Desk
from hansa_operator.errors import Clash, Denied, Missing, OperatorError, Refused
from hansa_operator.model import SECRET_LABEL, Found, Key, inner

log = logging.getLogger(__name__)
SILENCE_SECONDS = 75.0
"""A watch that has said nothing for so long is opened anew; the API server sends a bookmark each minute."""
PAUSE_SECONDS = 60.0


class Credentials:
    """Has objects reconciled whose Secret has changed."""

    def __init__(self, desk: Desk) -> None:
        self._cluster = desk.cluster
        self._platform = desk.platform
        self._wake = desk.wake
        self._names: dict[Key, str] = {}
        self._versions: dict[tuple[str, str], str] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}

    def follow(self, found: Found) -> str:
        """Hear of the Secret that an object names from now on; its name, empty if it names none."""
        name = str(inner(found.spec_value(), "credentials").get("secret") or "") if found.key.kind != "Tenant" else ""
        if not name:
            self.unfollow(found.key)
            return ""
        self._names[found.key] = name
        namespace = found.key.namespace
        if namespace not in self._watches:
            self._watches[namespace] = asyncio.create_task(self._watch(namespace), name=f"secrets of {namespace}")
        return name

    def unfollow(self, key: Key) -> None:
        """Hear of it no longer."""
        if self._names.pop(key, None) is not None and all(each.namespace != key.namespace for each in self._names):
            task = self._watches.pop(key.namespace, None)
            if task is not None:
                task.cancel()

    async def close(self) -> None:
        """End all watches."""
        tasks = list(self._watches.values())
        self._watches.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def copy(self, found: Found, tenant: str, fields: dict[str, Any]) -> tuple[Said, ...]:
        """Bring an object's Secret to the tenant's store, if it is another than last time. Puts what was brought into `fields`."""
        name = self.follow(found)
        known = inner(found.status_value(), "credentials")
        if not name:
            if known:
                fields["credentials"] = None
            return ()
        try:
            body = await self._cluster.get(f"/api/v1/namespaces/{found.key.namespace}/secrets/{name}")
        except (Missing, Denied):
            return ()
        meta = body["metadata"]
        if inner(meta, "labels").get(SECRET_LABEL) != "true":
            return ()
        brought = {"secret": name, "version": f"{meta['uid']}/{meta['resourceVersion']}"}
        if known != brought:
            try:
                value = _value(inner(body, "data"), whole=not found.spec_value()["credentials"].get("key"))
                await self._platform.set_secret(tenant, name, value, once=f"{meta['uid']}-{meta['resourceVersion']}")
            except Clash:
                pass  # the same is being brought already
            except Refused as error:
                return (say("CredentialsReady", "False", "SecretRefused", f"the Secret {name}: {error.message}"),)
            except ValueError:
                return (say("CredentialsReady", "False", "SecretRefused", f"the Secret {name} is empty, or holds what is not text"),)
        fields["credentials"] = brought
        return (say("CredentialsReady", "True", "SecretCopied", f"the Secret {name} is in the tenant's store"),)

    async def drop(self, found: Found, tenant: str) -> None:
        """Take a Secret that was brought for an object out of the tenant's store, unless another object names it."""
        name = inner(found.status_value(), "credentials").get("secret")
        self.unfollow(found.key)
        if name:
            try:
                await self._platform.delete_secret(tenant, str(name))  # the control plane keeps one that another object names
            except Refused as error:
                log.warning("the secret %s of tenant %s stays: %s", name, tenant, error)

    async def _watch(self, namespace: str) -> None:
        path = f"/api/v1/namespaces/{namespace}/secrets"
        selector = f"{SECRET_LABEL}=true"
        pause = 1.0
        while True:
            try:
                page = await self._cluster.get(f"{path}?{urlencode({'labelSelector': selector})}")
                items: list[dict[str, Any]] = page.get("items") or []
                for item in items:
                    self._seen(namespace, item)
                version = str(page["metadata"]["resourceVersion"])
                async for type_, body in self._cluster.watch(path, selector=selector, version=version, silence=SILENCE_SECONDS):
                    if type_ != "BOOKMARK":
                        self._seen(namespace, body)
                pause = 1.0
            except OperatorError as error:
                log.info("the Secrets of namespace %s can't be watched now: %s", namespace, error)
                pause = min(pause * 2, PAUSE_SECONDS)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311

    def _seen(self, namespace: str, body: dict[str, Any]) -> None:
        meta = body["metadata"]
        place, version = (namespace, str(meta["name"])), str(meta["resourceVersion"])
        if self._versions.get(place) != version:
            self._versions[place] = version
            self._wake([key for key, name in self._names.items() if (key.namespace, name) == place])


def _value(data: dict[str, str], *, whole: bool) -> str:
    """What the store is given: the only value, or all of them as a JSON object. Raises `ValueError`."""
    try:
        texts = {name: base64.b64decode(value, validate=True).decode() for name, value in data.items()}
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("not text") from error
    if not texts:
        raise ValueError("empty")
    if whole and len(texts) == 1:
        return next(iter(texts.values()))
    return msgspec.json.encode(texts, order="sorted").decode()
