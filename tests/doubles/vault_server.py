"""Vault's HTTP API as far as Hansa uses it: AppRole and Kubernetes logins, tokens that end and are renewed, transit, KV version 2,
sealed and too busy. Paths, bodies and refusals are those of its documentation; https://developer.hashicorp.com/vault/api-docs.
"""

import base64
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from doubles.rest import Asked, Said, rest_server

ROLE_ID, SECRET_ID, JWT = "a-role", "a-secret-id-of-tests", "a-service-account-token-of-tests"
DENIED = Said(403, {"errors": ["permission denied"]})


class VaultServer:
    """Use `vault_server`. Knobs: `sealed`, `busy` (so many requests are answered with 429), `denied` (paths), `token_seconds`."""

    def __init__(self) -> None:
        self.port = 0
        self.sealed = False
        self.busy = 0
        self.denied: set[str] = set()
        self.token_seconds = 3600.0
        self.renewable = True
        self.least_version = 1
        self.asked: list[Asked] = []
        self.tokens: set[str] = set()
        self.logins = self.renewals = 0
        self.kv: dict[str, dict[str, Any]] = {}
        self._keys = [AESGCM.generate_key(256)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def rotate(self) -> None:
        """What an operator does with `vault write -f transit/keys/hansa/rotate`."""
        self._keys.append(AESGCM.generate_key(256))

    def revoke_all(self) -> None:
        """No token is known any more."""
        self.tokens.clear()

    def answer(self, asked: Asked) -> Said:
        """One request."""
        self.asked.append(asked)
        if self.sealed:
            return Said(503, {"errors": ["Vault is sealed"]})
        if self.busy:
            self.busy -= 1
            return Said(429, {"errors": ["request path quota exceeded"]}, {"retry-after": "7"})
        path = asked.path.split("?")[0].removeprefix("/v1/")
        match asked.method, path:
            case "POST", "auth/approle/login":
                right = asked.body == {"role_id": ROLE_ID, "secret_id": SECRET_ID}
                return self._login() if right else Said(400, {"errors": ["invalid role or secret ID"]})
            case "POST", "auth/kubernetes/login":
                right = asked.body == {"role": ROLE_ID, "jwt": JWT}
                return self._login() if right else DENIED
            case _:
                pass
        token = asked.headers.get("x-vault-token", "")
        if token not in self.tokens or path in self.denied or asked.headers.get("x-vault-request") != "true":
            return DENIED
        return self._known(asked, path, token)

    def _known(self, asked: Asked, path: str, token: str) -> Said:
        match asked.method, path.split("/"):
            case "POST", ["auth", "token", "renew-self"]:
                self.renewals += 1
                return self._auth(token) if self.renewable else Said(400, {"errors": ["lease is not renewable"]})
            case "GET", ["auth", "token", "lookup-self"]:
                return Said(200, {"data": {"ttl": 0, "renewable": False}})
            case "GET", ["transit", "keys", "hansa"]:
                return Said(200, {"data": {"name": "hansa", "type": "aes256-gcm96", "latest_version": len(self._keys)}})
            case "POST", ["transit", "keys", "hansa", "rotate"]:
                self.rotate()
                return Said(204)
            case "POST", ["transit", "encrypt", "hansa"]:
                return self._sealed(base64.b64decode(asked.body["plaintext"]))
            case "POST", ["transit", "decrypt", "hansa"]:
                plain = self._opened(asked.body["ciphertext"])
                return plain if isinstance(plain, Said) else Said(200, {"data": {"plaintext": base64.b64encode(plain).decode()}})
            case "POST", ["transit", "rewrap", "hansa"]:
                plain = self._opened(asked.body["ciphertext"])
                return plain if isinstance(plain, Said) else self._sealed(plain)
            case "GET", ["secret", "data", *rest]:
                found = self.kv.get("/".join(rest))
                return Said(404, {"errors": []}) if found is None else Said(200, {"data": {"data": found, "metadata": {"version": 1}}})
            case _:
                return Said(404, {"errors": ["no handler for route"]})

    def _login(self) -> Said:
        self.logins += 1
        token = f"hvs.{secrets.token_hex(12)}"
        self.tokens.add(token)
        return self._auth(token)

    def _auth(self, token: str) -> Said:
        return Said(200, {"auth": {"client_token": token, "lease_duration": self.token_seconds, "renewable": self.renewable}})

    def _sealed(self, plain: bytes) -> Said:
        nonce, version = os.urandom(12), len(self._keys)
        text = base64.b64encode(nonce + AESGCM(self._keys[-1]).encrypt(nonce, plain, None)).decode()
        return Said(200, {"data": {"ciphertext": f"vault:v{version}:{text}", "key_version": version}})

    def _opened(self, text: str) -> bytes | Said:
        try:
            _, version, sealed = text.split(":")
            raw, number = base64.b64decode(sealed, validate=True), int(version[1:])
            if number < self.least_version:
                return Said(400, {"errors": ["ciphertext or signature version is disallowed by policy (too old)"]})
            return AESGCM(self._keys[number - 1]).decrypt(raw[:12], raw[12:], None)
        except (ValueError, IndexError, InvalidTag):
            return Said(400, {"errors": ["cipher: message authentication failed"]})


@asynccontextmanager
async def vault_server() -> AsyncIterator[VaultServer]:
    """A Vault that runs until the context ends."""
    server = VaultServer()
    async with rest_server(server.answer) as server.port:
        yield server
