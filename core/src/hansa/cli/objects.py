"""`hansa get`, `hansa delete` and `hansa takeover`: objects by kind and name; runs and sessions may be asked for in the same way."""

from dataclasses import replace
from typing import Annotated, Literal

from cyclopts import Parameter, validators

from hansa.cli import records
from hansa.cli.client import Json, open_api, segment
from hansa.cli.connection import Connection
from hansa.cli.output import Column, Row, WideFlag, WideOutput, age, field, say, show, show_value
from hansa.cli.rollout import ready, revision
from hansa.cli.tenants import Policy, Wait, delete_tenant, get_tenants
from hansa.cli.usage import UsageError
from hansa_crds import KINDS
from hansa_crds.problem import nearest

KindName = Annotated[str, Parameter(help="Kind of object, e.g. agent, agents or hag; also run and session.")]
_OTHERS = {"run": "run", "runs": "run", "session": "session", "sessions": "session"}
_OBJECT_COLUMNS = (field("NAME", "name"), field("GENERATION", "generation"), field("MANAGED BY", "manager"), age("CHANGED", "updated_at"))
_AGENT_COLUMNS = (
    field("NAME", "name"),
    Column("READY", lambda row: ready(row)["status"]),
    field("RUNTIME", "runtime"),
    field("MODEL", "model"),
    Column("REVISION", lambda row: revision(row)),
    Column("REASON", lambda row: ready(row)["reason"]),
    field("MANAGED BY", "manager"),
    age("CHANGED", "updated_at"),
    Column("DESCRIPTION", lambda row: str(row.get("description") or "-")),
)
SHOWN = 12
"""Characters of a commit that a table shows."""


def written(row: Row) -> str:
    """Where an object is written, as `file:line`."""
    source: Json = row.get("source") or {}
    return f"{source['file']}:{source['line']}" if source.get("file") else "-"


_WIDE = (
    field("ORIGIN", "origin"),
    Column("COMMIT", lambda row: str(row.get("commit") or "-")[:SHOWN]),
    Column("WRITTEN AT", written),
    field("APPLIED BY", "applied_by"),
)


def get(
    kind: KindName,
    name: str | None = None,
    *,
    limit: Annotated[int | None, Parameter(help="How many at most; left out: all.", validator=validators.Number(gte=1))] = None,
    connection: Connection | None = None,
    output: WideFlag = "table",
) -> None:
    """Show the objects of a kind, or one of them as the manifest that `hansa apply` takes; -o yaml and json add its status, -o wide shows
    who owns it and where it is written.

    Parameters
    ----------
    name
        Name of the object, or id of the run or session; left out: list them all.
    """
    found = resolve(kind)
    plain_output = "table" if output == "wide" else output
    if found == "run":
        show_it = records.show_run if name else records.list_runs
    elif found == "session":
        show_it = records.show_session if name else records.list_sessions
    else:
        show_it = None
    if show_it is not None:
        arguments = (name,) if name else ()
        show_it(*arguments, connection=connection, output=plain_output)
        return
    if found == "Tenant" and name is not None:
        connection = inside(connection or Connection(), name)
    with open_api(connection or Connection()) as api:
        wide = _WIDE if output == "wide" else ()
        if name is not None and wide:
            show([api.get(f"/v1/objects/{found}/{segment(name)}")], (*_OBJECT_COLUMNS, *wide), plain_output)
        elif name is not None:
            show_value(_shown(api.get(f"/v1/objects/{found}/{segment(name)}"), output), plain_output)
        elif found == "Agent":
            show(api.entries("/v1/agents", {}, limit), (*_AGENT_COLUMNS, *wide), plain_output)
        elif found == "Tenant":
            get_tenants(api, limit, output)
        else:
            show(api.entries("/v1/objects", {"kind": found}, limit), (*_OBJECT_COLUMNS, *wide), plain_output)


def inside(connection: Connection, name: str) -> Connection:
    """A Tenant object stands in its own tenant: who may act in any looks there."""
    with open_api(connection) as api:
        here = api.get("/v1/whoami")
    may = "tenants:act" in here["permissions"] and here["tenant"] != name
    return replace(connection, tenant=name) if may else connection


def _shown(kept: Json, output: WideOutput) -> Json:
    """An object as people wrote it; for programs with what the platform knows of it."""
    status = kept.get("status")
    return {**kept["manifest"], "status": status} if output in ("json", "yaml") and status else kept["manifest"]


def delete(
    kind: KindName,
    name: str,
    *,
    yes: Annotated[bool, Parameter(negative=(), help="Of a tenant: don't ask for its name.")] = False,
    policy: Annotated[Policy | None, Parameter(help="Of a tenant: instead of its deletionPolicy.")] = None,
    wait: Wait = 120.0,
    connection: Connection | None = None,
) -> None:
    """Delete an object. A tenant is closed at once, and archived or removed as its deletionPolicy says.

    Parameters
    ----------
    name
        Name of the object.
    """
    found = resolve(kind)
    if found == "Tenant":
        with open_api(connection or Connection()) as api:
            delete_tenant(api, name, yes=yes, policy=policy, wait=wait)
        return
    if found == "run":
        raise UsageError("a run is a record and is not deleted", hint=f"To stop it: hansa runs cancel {name}")
    if found == "session":
        raise UsageError("a session is a record and is not deleted")
    with open_api(connection or Connection()) as api:
        api.delete(f"/v1/objects/{found}/{segment(name)}")
    say(f"{found.lower()}/{name} deleted")


def takeover(
    target: Annotated[str, Parameter(help="The object, as KIND/NAME, e.g. agent/greeter.")],
    *,
    to: Annotated[Literal["rest", "git", "kubernetes"], Parameter(help="Who is to own it.")] = "rest",
    origin: Annotated[str, Parameter(help="Which one of it: of git the repository and folder, as URL//path.")] = "",
    connection: Connection | None = None,
) -> None:
    """Give an object another owner, on purpose: people, unless --to says otherwise. What it says stays as it is. The owner that had it is
    refused from now on, so take it out of there as well.
    """
    kind, _, name = target.partition("/")
    found = resolve(kind) if name else ""
    if not found or found in _OTHERS.values():
        raise UsageError(f"{target!r} is not an object as KIND/NAME", hint="For example: hansa takeover agent/greeter")
    connection = inside(connection or Connection(), name) if found == "Tenant" else connection
    with open_api(connection or Connection()) as api:
        api.act(f"/v1/objects/{found}/{segment(name)}/takeover", {"manager": to, "origin": origin})
    say(f"{found.lower()}/{name} is managed by {f'{to} ({origin})' if origin else 'people' if to == 'rest' else to} now")


def resolve(kind: str) -> str:
    """The kind that a word names, in any of its forms; `run` and `session` for those. Raises `UsageError`."""
    names = {form.lower(): each.kind for each in KINDS.values() for form in (each.kind, each.singular, each.plural, *each.short_names)}
    names |= _OTHERS
    if kind.lower() in names:
        return names[kind.lower()]
    near = nearest(kind, names)
    known = ", ".join([*(each.plural for each in KINDS.values()), "runs", "sessions"])
    raise UsageError(f"there is no kind {kind!r}" + (f", did you mean {near!r}?" if near else ""), hint=f"Kinds: {known}")
