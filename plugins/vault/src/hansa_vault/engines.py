"""Vault's engines as Hansa uses them: transit wraps data keys, KV version 2 keeps secrets."""

import base64
from collections.abc import Mapping
from typing import Any, cast

from hansa_sdk import SecretRefused, SecretServices, WrappedKey
from hansa_vault.login import Vault


class Transit:
    """Implements `hansa_sdk.KeyProvider`. What is wrapped says whose it is, for rewrapping keeps nothing that transit would bind it to."""

    def __init__(self, services: SecretServices) -> None:
        self._vault = Vault(services)

    @property
    def _place(self) -> tuple[str, str]:
        return self._vault.setting("vault_transit_key", "hansa"), self._vault.setting("vault_transit_mount", "transit")

    async def current(self) -> str:
        name, mount = self._place
        answer = await self._vault.ask("read the transit key", lambda client: client.secrets.transit.read_key(name=name, mount_point=mount))
        return f"{mount}/{name}:v{answer['data']['latest_version']}"

    async def wrap(self, key: bytes, tenant: str) -> WrappedKey:
        name, mount = self._place
        plain = base64.b64encode(_owner(tenant) + key).decode()
        answer = await self._vault.ask(
            "encrypt a data key", lambda client: client.secrets.transit.encrypt_data(name=name, plaintext=plain, mount_point=mount)
        )
        return self._wrapped(answer)

    async def unwrap(self, wrapped: WrappedKey, tenant: str) -> bytes:
        name, mount = self._place
        text = wrapped.data.decode("ascii", "replace")
        answer = await self._vault.ask(
            "decrypt a data key", lambda client: client.secrets.transit.decrypt_data(name=name, ciphertext=text, mount_point=mount)
        )
        plain = base64.b64decode(answer["data"]["plaintext"])
        owner = _owner(tenant)
        if not plain.startswith(owner):
            raise SecretRefused("a data key is another tenant's", hint="Look for who can write to the database; restore the row.")
        return plain[len(owner) :]

    async def rewrap(self, wrapped: WrappedKey, tenant: str) -> WrappedKey:
        name, mount = self._place
        text = wrapped.data.decode("ascii", "replace")
        answer = await self._vault.ask(
            "rewrap a data key", lambda client: client.secrets.transit.rewrap_data(name=name, ciphertext=text, mount_point=mount)
        )
        return self._wrapped(answer)

    def _wrapped(self, answer: Mapping[str, Any]) -> WrappedKey:
        name, mount = self._place
        text = str(answer["data"]["ciphertext"])  # vault:v3:...
        return WrappedKey(f"{mount}/{name}:{text.split(':')[1]}", text.encode())


class KeyValue:
    """Implements `hansa_sdk.SecretSource`: a tenant's secrets lie below `<prefix>/<tenant>/`."""

    def __init__(self, services: SecretServices) -> None:
        self._vault = Vault(services)

    async def read(self, tenant: str, path: str) -> Mapping[str, str]:
        mount, prefix = self._vault.setting("vault_kv_mount", "secret"), self._vault.setting("vault_kv_prefix", "hansa")
        place = f"{prefix}/{tenant}/{path}"
        answer = await self._vault.ask(
            f"read {mount}/data/{place}",
            lambda client: client.secrets.kv.v2.read_secret_version(path=place, mount_point=mount, raise_on_deleted_version=True),
        )
        found = cast("dict[str, Any]", answer["data"]["data"] or {})
        return {name: value for name, value in found.items() if isinstance(value, str)}


def _owner(tenant: str) -> bytes:
    return f"hansa data key|{tenant}|".encode()
