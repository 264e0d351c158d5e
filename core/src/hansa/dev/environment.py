"""The environment that `hansa up` gives to the processes it starts: the caller's own, and where everything is.

Must not know how the servers run. Warning: the admin's database URL is for `hansa migrate` alone.
"""

from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

import msgspec

from hansa.dev.failures import StackFailure
from hansa.dev.folder import DataFolder

ADMIN_URL = "HANSA_DATABASE_URL"
ROLES = {"HANSA_DATABASE_APP_URL": ("hansa_app", "app-password"), "HANSA_DATABASE_SYSTEM_URL": ("hansa_system", "system-password")}
PEPPER, AUDIT_KEY, KEY_ENCRYPTION = "key-pepper", "audit-key", "key-encryption-keys"


class Places(msgspec.Struct, frozen=True):
    """Where the servers are: the admin's database URL with its password, NATS, and the file with its token (empty: none)."""

    folder: DataFolder
    database: str
    nats: str
    nats_token_file: str


def for_processes(environ: Mapping[str, str], places: Places) -> dict[str, str]:
    """For the control plane and the workers. What the caller sets wins, except for what belongs to the data folder."""
    folder = places.folder
    env = {
        **{variable: role_url(places.database, role, folder.secret(secret)) for variable, (role, secret) in ROLES.items()},
        "HANSA_KEY_PEPPER_FILE": str(folder.secret_file(PEPPER)),
        "HANSA_AUDIT_KEY_FILE": str(folder.secret_file(AUDIT_KEY)),
        "HANSA_SECRETS_KEY_FILE": str(folder.secret_file(KEY_ENCRYPTION)),
        **environ,
        "HANSA_NATS_URL": places.nats,
        "HANSA_API_KEY_FILE": str(folder.api_key),
        "HANSA_DATA_DIR": str(folder.path),
    }
    if places.nats_token_file:
        env["HANSA_NATS_TOKEN_FILE"] = places.nats_token_file
    for private in (ADMIN_URL, "HANSA_SERVER_FD"):
        env.pop(private, None)
    return env


def for_migrate(environ: Mapping[str, str], places: Places) -> dict[str, str]:
    """For `hansa migrate`: the same, and the admin's URL."""
    return {**for_processes(environ, places), ADMIN_URL: places.database}


def role_url(url: str, role: str, password: str) -> str:
    """The same database for another role."""
    parts = _split(url)
    return parts._replace(netloc=f"{role}:{password}@{_place(parts)}").geturl()


def shown(url: str) -> str:
    """The URL without its password."""
    parts = _split(url)
    user = parts.netloc.rpartition("@")[0].partition(":")[0]
    return parts._replace(netloc=f"{user}@{_place(parts)}" if user else _place(parts)).geturl()


def _place(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise StackFailure("the URL of a server can't be read", hint="See HANSA_DATABASE_URL and HANSA_NATS_URL.") from error
