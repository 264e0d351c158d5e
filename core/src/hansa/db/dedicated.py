"""The databases that tenants have to themselves, as the platform's people have written them down: a TOML file, a table a tenant.

    [acme]
    app_url = "postgresql://hansa_app:...@db-acme/hansa"
    system_url = "postgresql://hansa_system:...@db-acme/hansa"
    url = "postgresql://postgres:...@db-acme/hansa"      # the admin's, for `hansa migrate` alone

A tenant's name is the name of its database: who may write Tenant objects can't point one anywhere. Must not connect to anything.
"""

import re
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from hansa.errors import FieldError, Misconfigured

VARIABLE = "HANSA_DATABASE_DEDICATED_FILE"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
DEFAULT = "default"


class Urls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The three ways into one database; `url` is the admin's."""

    app_url: str
    system_url: str
    url: str = ""


def read_dedicated(path: str) -> dict[str, Urls]:
    """Tenant -> its database. Raises `Misconfigured` naming each place; never with what a URL holds."""
    if not path:
        return {}
    try:
        tables = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise Misconfigured(f"{VARIABLE} {path} can't be read: {error.strerror}") from error
    except ValueError as error:  # of TOML, or of UTF-8
        raise Misconfigured(f"{VARIABLE} {path} is no TOML file: {error}", hint="A table a tenant: see docs/tenants.md.") from error
    errors: list[FieldError] = []
    found = {name: _urls(name, table, errors) for name, table in tables.items()}
    if errors:
        told = "; ".join(f"{error.path}: {error.message}" for error in errors)
        raise Misconfigured(f"{VARIABLE} {path}: {told}", errors=tuple(errors))
    return {name: urls for name, urls in found.items() if urls is not None}


def _urls(name: str, table: object, errors: list[FieldError]) -> Urls | None:
    if NAME.fullmatch(name) is None or len(name) > 63:
        errors.append(FieldError(name[:80], "pattern", "is no name that a tenant can have"))
    if name == DEFAULT:
        errors.append(
            FieldError(name, "reference", "the tenant `default` is the installation's own, and always in the platform's database")
        )
    try:
        urls = msgspec.convert(table, Urls)
    except msgspec.ValidationError as error:
        errors.append(FieldError(name[:80], "type", f"{error}; it has app_url, system_url and url"))
        return None
    for field, url in msgspec.structs.asdict(urls).items():
        if url and not _reads(url):
            errors.append(FieldError(f"{name[:80]}.{field}", "pattern", "is no URL like postgresql://user:password@host/database"))
    return urls


def _reads(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("postgresql", "postgres") and len(parts.path) > 1
