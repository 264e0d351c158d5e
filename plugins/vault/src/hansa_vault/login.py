"""A client of Vault that is logged in: by AppRole, by a Kubernetes service account, or with a token; renewed in time.

Warning: tokens and secret ids are read from files at each login, since whatever puts them there changes them.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import hvac
import hvac.exceptions

from hansa_sdk import SecretRefused, SecretServices, SecretUnavailable
from hansa_vault.door import Door

T = TypeVar("T")
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/token"
PREFIX = "HANSA_SECRETS_"
LOGINS = 2
"""A token that Vault no longer takes may just have been revoked: one more login, then it is a refusal."""


class Vault:
    """Asks Vault. `ask` runs a function of the client in a thread, logged in."""

    def __init__(self, services: SecretServices) -> None:
        self._settings = services.settings
        self._http = services.http
        self._client: Any = None
        self._renewable = False
        self._renew_at = 0.0
        self._lock = asyncio.Lock()

    def setting(self, name: str, default: str = "") -> str:
        """A setting. Raises `SecretRefused` when it is not set and has no default."""
        value = self._settings.get(name, "") or default
        if not value:
            raise SecretRefused(f"{PREFIX}{name.upper()} is not set", hint="See the README of hansa-vault.")
        return value

    async def ask(self, what: str, asking: Callable[[Any], T]) -> T:
        """What `asking` gives of the client. Raises `SecretUnavailable` or `SecretRefused`; `what` is told, and nothing of the answer."""
        for login in range(LOGINS):
            client = await self._logged_in()
            try:
                return await asyncio.to_thread(asking, client)
            except (hvac.exceptions.Forbidden, hvac.exceptions.Unauthorized) as error:
                await self._log_out(client)
                if login + 1 == LOGINS:
                    hint = "Its policy must allow it: see the README of hansa-vault."
                    raise SecretRefused(f"Vault does not let us {what} (permission denied)", hint=hint) from error
            except hvac.exceptions.InvalidPath as error:
                raise SecretRefused(
                    f"Vault has nothing where we would {what} (404)", hint="Is the engine mounted, and the path right?"
                ) from error
            except hvac.exceptions.InvalidRequest as error:
                raise SecretRefused(f"Vault refuses to {what} (400): it is damaged, or by a version that Vault no longer opens") from error
            except hvac.exceptions.VaultError as error:
                raise SecretRefused(f"Vault could not {what}: {type(error).__name__}") from error
        raise AssertionError("unreachable")

    async def _logged_in(self) -> Any:
        loop = asyncio.get_running_loop()
        async with self._lock:
            if self._client is not None and loop.time() >= self._renew_at:
                await self._renew()
            if self._client is None:
                session: Any = Door(self._http, loop)  # hvac asks for one of `requests`, and uses no more than this is
                client = hvac.Client(
                    url=self.setting("vault_url"),
                    token="",  # not None, or hvac would look for one in the environment and the home folder
                    verify=True,
                    allow_redirects=False,
                    session=session,
                    namespace=self._settings.get("vault_namespace") or None,
                )
                self._keep(await self._login(client))
                self._client = client
            return self._client

    async def _log_out(self, client: Any) -> None:
        async with self._lock:
            if self._client is client:  # someone else may have logged in again meanwhile
                self._client = None

    async def _renew(self) -> None:
        """Renew the token; what can't be renewed is fetched anew."""
        client, self._client = self._client, None
        if not self._renewable:
            return
        try:
            self._keep(await asyncio.to_thread(client.auth.token.renew_self))
            self._client = client
        except (hvac.exceptions.VaultError, SecretRefused):
            return

    def _keep(self, answer: Mapping[str, Any]) -> None:
        auth: dict[str, Any] = answer.get("auth") or {}
        seconds = float(auth.get("lease_duration") or 0)
        self._renewable = bool(auth.get("renewable"))
        # A token without an end is good until Vault says otherwise.
        self._renew_at = asyncio.get_running_loop().time() + (seconds * 2 / 3 if seconds else 1e9)

    async def _login(self, client: Any) -> Mapping[str, Any]:
        method = self.setting("vault_auth", "approle")
        mount = self.setting("vault_auth_mount", method)
        match method:
            case "approle":
                role_id, secret_id = self.setting("vault_role_id"), _read(self.setting("vault_secret_id_file"))
                login = lambda: client.auth.approle.login(role_id=role_id, secret_id=secret_id, mount_point=mount)  # noqa: E731
            case "kubernetes":
                role, jwt = self.setting("vault_role"), _read(self.setting("vault_jwt_file", SERVICE_ACCOUNT))
                login = lambda: client.auth.kubernetes.login(role=role, jwt=jwt, mount_point=mount)  # noqa: E731
            case "token":
                client.token = _read(self.setting("vault_token_file"))
                login = lambda: {"auth": client.auth.token.lookup_self()["data"]}  # noqa: E731
            case _:
                raise SecretRefused(f"{PREFIX}VAULT_AUTH is {method!r}", hint="It is approle, kubernetes or token.")
        try:
            return await asyncio.to_thread(login)
        except hvac.exceptions.VaultError as error:
            raise SecretRefused(
                f"Vault refuses the login by {method} ({type(error).__name__})", hint="See HANSA_SECRETS_VAULT_*."
            ) from error


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretUnavailable(
            f"the file {path} can't be read ({type(error).__name__})", hint="It holds what we log in to Vault with."
        ) from None
