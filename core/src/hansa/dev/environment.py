"""The environment that `hansa up` gives to the processes it starts: the caller's own, and where everything is.

Must not know how the servers run. Warning: the admin's database URL is for `hansa migrate` alone.
"""

from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

import msgspec

from hansa.dev.failures import StackFailure
from hansa.dev.folder import DataFolder

ADMIN_URL, DEDICATED = "HANSA_DATABASE_URL", "HANSA_DATABASE_DEDICATED_FILE"
ROLES = {"HANSA_DATABASE_APP_URL": ("hansa_app", "app-password"), "HANSA_DATABASE_SYSTEM_URL": ("hansa_system", "system-password")}
PEPPER, AUDIT_KEY, KEY_ENCRYPTION = "key-pepper", "audit-key", "key-encryption-keys"
NATS_OPERATOR, NATS_LOGINS = "HANSA_NATS_OPERATOR_FILE", ("HANSA_NATS_TOKEN_FILE", "HANSA_NATS_CREDS_FILE", "HANSA_NATS_OPERATOR_FILE")


class Places(msgspec.Struct, frozen=True):
    """Where the servers are: the admin's database URL with its password, NATS, and the files with the platform's credentials and with
    the operator's seed of an embedded one (empty: a server of your own, which the caller's environment tells how to log in to).
    `dedicated_files`: those that name the databases that tenants have to themselves, for processes and for `hansa migrate`.
    """

    folder: DataFolder
    database: str
    nats: str
    nats_credentials_file: str = ""
    nats_operator_file: str = ""
    dedicated_files: tuple[str, str] = ("", "")


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
    if places.nats_credentials_file:
        for login in NATS_LOGINS:
            env.pop(login, None)
        env["HANSA_NATS_CREDS_FILE"] = places.nats_credentials_file
        env[NATS_OPERATOR] = places.nats_operator_file
    if places.dedicated_files[0]:
        env[DEDICATED] = places.dedicated_files[0]
    for private in (ADMIN_URL, "HANSA_SERVER_FD"):
        env.pop(private, None)
    return env


def for_worker(env: Mapping[str, str]) -> dict[str, str]:
    """Of what the control plane is given, what a worker, in which plugins run, is given too: not the key to all accounts."""
    return {name: value for name, value in env.items() if name != NATS_OPERATOR}


def for_migrate(environ: Mapping[str, str], places: Places) -> dict[str, str]:
    """For `hansa migrate`: the same, and the admin's URLs."""
    env = {**for_processes(environ, places), ADMIN_URL: places.database}
    return {**env, DEDICATED: places.dedicated_files[1]} if places.dedicated_files[1] else env


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
