"""`hansa auth`, `hansa keys` and `hansa service-accounts`: who one is, and who may come in."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from cyclopts import App, Parameter, validators

from hansa.auth.keys import make as new_key
from hansa.cli.client import Json, open_api, segment
from hansa.cli.connection import Connection
from hansa.cli.output import Column, OutputFlag, Row, age, field, say, show, show_value, write
from hansa.cli.usage import UsageError, time_of

_KEY_COLUMNS = (
    field("ID", "id"),
    field("NAME", "name"),
    field("ACCOUNT", "service_account"),
    Column("ROLES", lambda row: ", ".join(row.get("roles") or ()) or "-"),
    Column("SCOPES", lambda row: ", ".join(row.get("scopes") or ()) or "-"),
    field("MADE BY", "made_by"),
    Column("EXPIRES", lambda row: str(row.get("expires_at") or "-")[:19]),
    age("LAST USED", "used_at"),
    Column("REVOKED", lambda row: str(row.get("revoked_at") or "-")[:19]),
)
_ACCOUNT_COLUMNS = (
    field("NAME", "name"),
    Column("ROLES", lambda row: ", ".join(row.get("roles") or ()) or "-"),
    Column("BOUND", lambda row: ", ".join(row.get("bound") or ()) or "-"),
    field("MADE BY", "made_by"),
    age("AGE", "created_at"),
    field("DESCRIPTION", "description"),
)
auth = App(name="auth")
keys = App(name="keys")
accounts = App(name="service-accounts")


# A dataclass and not a Struct: cyclopts makes options of the fields of dataclasses only.
@Parameter(name="*")
@dataclass(frozen=True)
class Powers:
    """What a new key may do."""

    role: Annotated[tuple[str, ...], Parameter(negative=(), help="What it may do; may be given again.")] = ()
    service_account: Annotated[str, Parameter(help="Instead of roles: the service account that it is a key of.")] = ""
    scope: Annotated[tuple[str, ...], Parameter(negative=(), help="Only these permissions of its roles; may be given again.")] = ()


@auth.default
@auth.command(name="whoami")
def whoami(*, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """Show who you are: the tenant, the roles and all that you may do."""
    with open_api(connection or Connection()) as api:
        found = api.get("/v1/whoami")
    if output != "table":
        show_value(found, output)
        return
    write(f"{found['name']} in tenant {found['tenant']}, roles: {', '.join(found['roles']) or 'none'}\n")
    for permission in found["permissions"]:
        write(f"  {permission}\n")
    for place in found["namespaces"]:
        write(f"in namespace {place['namespace']}, roles: {', '.join(place['roles'])}\n")
        for permission in place["permissions"]:
            write(f"  {permission}\n")


@auth.command(name="can-i")
def can_i(
    permission: str,
    *,
    as_: Annotated[str, Parameter(name="--as", help="Ask of another: user:ISSUER:NAME, service:NAME or key:ID.")] = "",
    group: Annotated[tuple[str, ...], Parameter(negative=(), help="A group of that user, as ISSUER:NAME; may be given again.")] = (),
    namespace: Annotated[str, Parameter(help="Ask of this namespace; left out: of the whole tenant.")] = "",
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> int:
    """Say whether you, or another, have a permission, such as runs:start, and in which namespaces if not in all; status 1 when not."""
    with open_api(connection or Connection()) as api:
        found = api.get("/v1/access", {"subject": as_, "groups": ",".join(group)}) if as_ else api.get("/v1/whoami")
    everywhere = permission in found["permissions"]
    places = [each["namespace"] for each in found["namespaces"] if permission in each["permissions"]]
    allowed = everywhere or namespace in places
    if output != "table":
        told = {"permission": permission, "allowed": allowed, "roles": found["roles"], "namespaces": None if everywhere else places}
        show_value(told, output)
    else:
        only = "" if everywhere or allowed or not places else f", only in {', '.join(places)}"
        write("yes\n" if allowed else f"no{only}\n")
    return 0 if allowed else 1


@keys.default
@keys.command(name="list")
def list_keys(*, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """List the API keys of the tenant, also those that are revoked or have expired; never their secrets."""
    with open_api(connection or Connection()) as api:
        show(api.entries("/v1/api-keys", {}, None), _KEY_COLUMNS, output)


@keys.command(name="create")
def create_key(
    name: str,
    *,
    powers: Powers | None = None,
    expires: Annotated[str, Parameter(help="When it ends, e.g. 2030-01-31T12:00:00+01:00; left out: never.")] = "",
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> None:
    """Make an API key that may do no more than yours. Its text is the only thing on stdout, and is never shown again.

    Parameters
    ----------
    name
        What the key is for.
    """
    given = powers or Powers()
    if bool(given.role) == bool(given.service_account):
        raise UsageError("a key has roles (--role), or is that of a service account (--service-account)")
    body: Json = {"name": name, "roles": list(given.role)}
    if given.service_account:
        body["service_account"] = given.service_account
    if given.scope:
        body["scopes"] = list(given.scope)
    if expires:
        body["expires_at"] = time_of(expires, "--expires")
    with open_api(connection or Connection()) as api:
        _show_made(api.post("/v1/api-keys", body), output)


@keys.command(name="make")
def make_first_key() -> None:
    """Make the text of an installation's first key, without asking a server: `hansa migrate` lets in what HANSA_API_KEY_FILE holds."""
    text, _, _ = new_key("live")
    write(f"{text}\n")


@keys.command(name="rotate")
def rotate_key(
    key_id: str,
    *,
    grace: Annotated[float, Parameter(help="Hours for which both keys are good.", validator=validators.Number(gte=0, lte=720))] = 24.0,
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> None:
    """Make the successor of a key, which may do the same; the old one ends when the grace is over."""
    with open_api(connection or Connection()) as api:
        seconds = int(timedelta(hours=grace).total_seconds())
        _show_made(api.post(f"/v1/api-keys/{segment(key_id)}/rotate", {"grace_seconds": seconds}), output)


@keys.command(name="revoke")
def revoke_key(key_id: str, *, connection: Connection | None = None) -> None:
    """Revoke a key at once and for good."""
    with open_api(connection or Connection()) as api:
        api.delete(f"/v1/api-keys/{segment(key_id)}")
    say(f"key {key_id} revoked")


@accounts.default
@accounts.command(name="list")
def list_accounts(*, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """List the service accounts of the tenant."""
    with open_api(connection or Connection()) as api:
        show(api.entries("/v1/service-accounts", {}, None), _ACCOUNT_COLUMNS, output)


@accounts.command(name="create")
def create_account(
    name: str,
    *,
    role: Annotated[tuple[str, ...], Parameter(negative=(), help="What it may do beside what is bound to it; may be given again.")] = (),
    description: Annotated[str, Parameter(help="What it is for.")] = "",
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> None:
    """Make a service account that may do no more than you. `hansa keys create --service-account` gives it keys."""
    body: Json = {"name": name, "roles": list(role), "description": description}
    with open_api(connection or Connection()) as api:
        made = api.post("/v1/service-accounts", body)
    if output != "table":
        show_value(made, output)
    else:
        say(f"service account {made['name']} made")


@accounts.command(name="delete")
def delete_account(name: str, *, connection: Connection | None = None) -> None:
    """Delete a service account and all its keys, at once and for good."""
    with open_api(connection or Connection()) as api:
        api.delete(f"/v1/service-accounts/{segment(name)}")
    say(f"service account {name} deleted, with its keys")


def _show_made(made: Row, output: OutputFlag) -> None:
    if output != "table":
        show_value(made, output)
        return
    write(f"{made['key']}\n")
    until = f", good until {made['expires_at']}" if made.get("expires_at") else ""
    say(f"key {made['id']} ({made['name']}) made{until}; keep its text, it is not shown again")
