"""`hansa auth` and `hansa keys`: who one is, and who may come in."""

from datetime import timedelta
from typing import Annotated

from cyclopts import App, Parameter, validators

from hansa.cli.client import Json, open_api, segment
from hansa.cli.connection import Connection
from hansa.cli.output import Column, OutputFlag, Row, age, field, say, show, show_value, write
from hansa.cli.usage import time_of

_KEY_COLUMNS = (
    field("ID", "id"),
    field("NAME", "name"),
    Column("ROLES", lambda row: ", ".join(row.get("roles") or ()) or "-"),
    Column("SCOPES", lambda row: ", ".join(row.get("scopes") or ()) or "-"),
    field("MADE BY", "made_by"),
    Column("EXPIRES", lambda row: str(row.get("expires_at") or "-")[:19]),
    age("LAST USED", "used_at"),
    Column("REVOKED", lambda row: str(row.get("revoked_at") or "-")[:19]),
)
auth = App(name="auth")
keys = App(name="keys")


@auth.default
@auth.command(name="whoami")
def whoami(*, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """Show who you are: the tenant, the roles and all that you may do."""
    with open_api(connection or Connection()) as api:
        found = api.get("/v1/whoami")
    if output != "table":
        show_value(found, output)
        return
    write(f"{found['name']} in tenant {found['tenant']}, roles: {', '.join(found['roles'])}\n")
    for permission in found["permissions"]:
        write(f"  {permission}\n")


@auth.command(name="can-i")
def can_i(permission: str, *, connection: Connection | None = None, output: OutputFlag = "table") -> int:
    """Say whether you have a permission, such as runs:start; status 1 when not."""
    with open_api(connection or Connection()) as api:
        allowed = permission in api.get("/v1/whoami")["permissions"]
    if output != "table":
        show_value({"permission": permission, "allowed": allowed}, output)
    else:
        write("yes\n" if allowed else "no\n")
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
    role: Annotated[tuple[str, ...], Parameter(negative=(), help="What it may do; may be given again.")],
    scope: Annotated[tuple[str, ...], Parameter(negative=(), help="Only these permissions of its roles; may be given again.")] = (),
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
    body: Json = {"name": name, "roles": list(role)}
    if scope:
        body["scopes"] = list(scope)
    if expires:
        body["expires_at"] = time_of(expires, "--expires")
    with open_api(connection or Connection()) as api:
        _show_made(api.post("/v1/api-keys", body), output)


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


def _show_made(made: Row, output: OutputFlag) -> None:
    if output != "table":
        show_value(made, output)
        return
    write(f"{made['key']}\n")
    until = f", good until {made['expires_at']}" if made.get("expires_at") else ""
    say(f"key {made['id']} ({made['name']}) made{until}; keep its text, it is not shown again")
