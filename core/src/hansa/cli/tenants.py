"""`hansa tenants`, and what `hansa get` and `hansa delete` do with a Tenant: all tenants, how they are, and whole ones out and in again."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter, validators

from hansa.cli.client import Api, Json, open_api, segment
from hansa.cli.connection import Connection
from hansa.cli.output import Column, OutputFlag, Row, WideFlag, WideOutput, age, field, say, show, show_value
from hansa.cli.usage import UsageError
from hansa.errors import HansaError, Invalid, NotFound, Unavailable

BUNDLE = "application/x-tar"
Policy = Literal["Retain", "Export", "Delete"]
LOOK_SECONDS = 0.5
END = b"end.json"
"""What the last member of an export is called, and how many bytes surely hold its head."""
LAST_BYTES = 4096

tenants = App(name="tenants")


def condition(type_: str, name: str) -> Column:
    """A column that shows a field of one condition."""
    return Column(type_.upper() if name == "status" else name.upper(), lambda row: _of(row, type_).get(name, "-"))


def _of(row: Row, type_: str) -> dict[str, str]:
    found: list[dict[str, str]] = row.get("conditions") or []
    return next((each for each in found if each["type"] == type_), dict[str, str]())


COLUMNS = (
    field("NAME", "name"),
    condition("Ready", "status"),
    field("STATE", "state"),
    field("SUSPENDED", "suspended"),
    field("WEIGHT", "weight"),
    field("RUNS AT ONCE", "concurrent_runs"),
    field("REQUESTS/S", "requests_per_second"),
    Column("ISOLATED", lambda row: _of(row, "IsolationVerified").get("status", "-")),
    age("AGE", "created_at"),
    field("DISPLAY NAME", "display_name"),
)
WIDE = (field("WORKERS", "workers"), field("DELETION", "deletion_policy"), condition("Ready", "reason"), condition("Ready", "message"))
DELETION_COLUMNS = (
    field("ID", "id"),
    field("TENANT", "tenant"),
    field("POLICY", "policy"),
    field("STEP", "step"),
    field("EXPORTED", "exported"),
    age("REQUESTED", "requested_at"),
    field("BY", "requested_by"),
)


def show_tenants(rows: Sequence[Row], output: WideOutput) -> None:
    """Print tenants in one of the ways."""
    show(rows, (*COLUMNS, *WIDE) if output == "wide" else COLUMNS, "table" if output == "wide" else output)


@tenants.default
@tenants.command(name="list")
def list_tenants(*, connection: Connection | None = None, output: WideFlag = "table") -> None:
    """List all tenants. A Tenant object makes one; --tenant acts in it."""
    with open_api(connection or Connection()) as api:
        show_tenants(api.entries("/v1/tenants", {}, None), output)


@tenants.command(name="show")
def show_tenant(name: str, *, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """Show one tenant with all its conditions: what is so, why, and since when."""
    with open_api(connection or Connection()) as api:
        show_value(api.get(f"/v1/tenants/{segment(name)}"), output)


@tenants.command(name="restore")
def restore(name: str, *, connection: Connection | None = None) -> None:
    """Bring back a tenant that was deleted with the policy Retain, with its keys and all it had."""
    with open_api(connection or Connection()) as api:
        found: Json = api.post(f"/v1/tenants/{segment(name)}/restore", {})
    say(f"tenant/{name}: {found['state']}" + (", suspended" if found["suspended"] else ""))


@tenants.command(name="deletions")
def deletions(*, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """List deletions of tenants, the newest first; they outlive what was deleted."""
    with open_api(connection or Connection()) as api:
        show(api.entries("/v1/deletions", {}, None), DELETION_COLUMNS, output)


@tenants.command(name="export")
def export(name: str, *, connection: Connection | None = None) -> None:
    """Write a tenant to stdout, as a tar file that `import` reads: its objects, its sessions, what is known of its keys.

    Parameters
    ----------
    name
        Name of a tenant, or id of a deletion that was made with the policy Export.
    """
    if sys.stdout.isatty():
        raise UsageError("an export is made for a file, not for a terminal", hint=f"hansa tenants export {name} > {name}.tar")
    tail = b""
    with open_api(connection or Connection()) as api, api.download(_export_path(api, name)) as pieces:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
            tail = (tail + piece)[-LAST_BYTES:]
    sys.stdout.buffer.flush()
    if END not in tail:
        raise Unavailable("the export broke off", hint="What was written can't be imported. The control plane's log says why.")


def _export_path(api: Api, name: str) -> str:
    try:
        api.get(f"/v1/tenants/{segment(name)}")
    except NotFound:
        return f"/v1/deletions/{segment(name)}/export" if name.count("-") == 4 else f"/v1/tenants/{segment(name)}/export"
    return f"/v1/tenants/{segment(name)}/export"


@tenants.command(name="import")
def import_tenant(
    file: Annotated[str, Parameter(help="What `export` wrote; - is stdin.", allow_leading_hyphen=True)] = "-",
    *,
    name: Annotated[str, Parameter(help="Name of the tenant that is made; left out: that of the export.")] = "",
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> int:
    """Make a tenant of an export; what is there already is left as it is, so an import that was cut off is made again. Status 1 when
    something was refused."""
    try:
        bundle = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise Invalid(f"{file} can't be read: {error.strerror}") from error
    with open_api(connection or Connection()) as api:
        made: Json = api.upload("/v1/tenants:import", bundle, BUNDLE, {"name": name} if name else None)
    if output != "table":
        show_value(made, output)
        return int(bool(made["failed"]))
    refused = [each for each in made["objects"] if each["action"] == "failed"]
    for each in refused:
        say(f"{each['kind'].lower()}/{each['name']} was refused: {each['errors'][0]['message']}")
    for line in made.get("refused") or ():
        say(f"refused: {line}")
    objects = len(made["objects"]) - len(refused)
    say(
        f"tenant/{made['tenant']}: {made['sessions']} sessions ({made['present']} were there), {objects} objects; "
        f"it had {made['keys']} API keys: make new ones (hansa keys create --tenant {made['tenant']})"
    )
    return int(bool(made["failed"]))


def delete_tenant(api: Api, name: str, *, yes: bool, policy: Policy | None, wait: float) -> None:
    """Delete a tenant once the person has repeated its name, and tell what became of it."""
    query = {"confirm": name if yes else _confirmed(name)} | ({"policy": policy} if policy else {})
    found: Json = api.delete(f"/v1/tenants/{segment(name)}", query)
    if found["state"] == "archived":
        say(f"tenant/{name} archived: nobody gets in, all is kept; `hansa tenants restore {name}` brings it back")
        return
    say(f"tenant/{name}: nobody gets in any more, what it has is being removed")
    give_up = time.monotonic() + wait
    while time.monotonic() < give_up:
        try:
            api.get(f"/v1/tenants/{segment(name)}")
        except NotFound:
            say(f"tenant/{name} deleted; `hansa tenants deletions` tells of it")
            return
        time.sleep(LOOK_SECONDS)
    if wait:
        raise Unavailable(f"tenant {name!r} is not gone after {wait:g} s", hint="Workers go on with it; look at `hansa tenants deletions`.")


def _confirmed(name: str) -> str:
    if not sys.stdin.isatty():
        raise UsageError(f"deleting tenant {name!r} is to be confirmed", hint="With --yes nobody is asked.")
    say(f"This closes tenant {name!r}, and may remove all it has. Type its name to go on:")
    typed = sys.stdin.readline().strip()
    if typed != name:
        raise UsageError(f"that is not {name!r}; nothing was done")
    return typed


def get_tenants(api: Api, limit: int | None, output: WideOutput) -> None:
    """All tenants, or one's own where others are nobody's business."""
    try:
        rows = api.entries("/v1/tenants", {}, limit)
    except HansaError as error:
        if error.code != "forbidden":
            raise
        rows = [_as_view(each) for each in api.entries("/v1/objects", {"kind": "Tenant"}, limit)]
    show_tenants(rows, output)


def _as_view(kept: Json) -> Json:
    spec: Json = kept["manifest"].get("spec") or {}
    quotas: Json = spec.get("quotas") or {}
    return {
        "name": kept["name"],
        "display_name": spec.get("displayName"),
        "suspended": spec.get("suspend", False),
        "weight": spec.get("weight", 1),
        "concurrent_runs": quotas.get("concurrentRuns"),
        "requests_per_second": quotas.get("requestsPerSecond"),
        "created_at": kept["created_at"],
        "state": kept["status"]["state"],
        "conditions": kept["status"]["conditions"],
    }


Wait = Annotated[float, Parameter(help="Of a tenant: seconds to wait until nothing is left of it.", validator=validators.Number(gte=0))]
