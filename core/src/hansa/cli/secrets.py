"""`hansa secrets`: set and list what a tenant keeps secret, and change the keys it is kept with. Nothing shows a value.

Warning: an argument of a program stands in the process list and in the shell's history; so a value comes from elsewhere.
"""

import getpass
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter, validators

from hansa.cli.client import Api, Json, open_api, segment
from hansa.cli.connection import Connection
from hansa.cli.output import Column, OutputFlag, age, field, plain, say, show, show_value
from hansa.cli.usage import UsageError

_COLUMNS = (
    field("NAME", "name"),
    field("VERSION", "version"),
    Column("KEPT", lambda row: f"{row['source']}: {row['path']}" if row.get("source") else "here"),
    Column("HOSTS", lambda row: ", ".join(row["hosts"] or ()) or "any"),
    field("SET BY", "made_by"),
    age("AGE", "created_at"),
)

secrets = App(name="secrets")


# A dataclass: cyclopts makes options of the fields of dataclasses only.
@Parameter(name="*")
@dataclass(frozen=True)
class Place:
    """Where a value is kept that is not kept here, and where any value may go."""

    source: Annotated[str, Parameter(help="The value is kept by this secret source; --path says where.")] = ""
    path: Annotated[str, Parameter(help="Where the source has it.")] = ""
    host: Annotated[
        tuple[str, ...],
        Parameter(help="Send it to this host only; may be given several times. `any`: to all; left out: as the version before."),
    ] = ()


@secrets.default
@secrets.command(name="list")
def list_secrets(*, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """List the tenant's secrets, never what they hold."""
    with open_api(connection or Connection()) as api:
        show(api.entries("/v1/secrets", {}, None), _COLUMNS, output)


@secrets.command(name="set")
def set_secret(
    name: str,
    *,
    file: Annotated[Path | None, Parameter(allow_leading_hyphen=True, help="Read the value from this file; - is stdin.")] = None,
    place: Place | None = None,
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> None:
    """Set a secret; new calls use it at once. The value is asked for on a terminal, and read from stdin elsewhere.

    Parameters
    ----------
    name
        What ModelProvider, ToolServer and Agent objects call it.
    """
    place = place or Place()
    if (file is not None and place.source) or bool(place.source) != bool(place.path):
        raise UsageError("give --file, or --source with --path", hint="Or none: the value is asked for, or read from stdin.")
    body: Json = {"name": name, "source": place.source, "path": place.path} if place.source else {"name": name, "value": _value(file)}
    if place.host:
        body["hosts"] = [] if place.host == ("any",) else list(place.host)
    with open_api(connection or Connection()) as api:
        made: Json = api.act("/v1/secrets", body)
    if output != "table":
        show_value(made, output)
    else:
        say(f"secret {made['name']} set, version {made['version']}")


@secrets.command(name="show")
def show_secret(name: str, *, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """Show what is known of a secret, never what it holds."""
    with open_api(connection or Connection()) as api:
        show_value(api.get(f"/v1/secrets/{segment(name)}"), output)


@secrets.command(name="delete")
def delete_secret(name: str, *, connection: Connection | None = None) -> None:
    """Delete a secret with all its versions; one that objects name stays."""
    with open_api(connection or Connection()) as api:
        api.delete(f"/v1/secrets/{segment(name)}")
    say(f"secret {name} deleted")


@secrets.command(name="rotate")
def rotate(
    *,
    generation: Annotated[int, Parameter(help="Go on with this one, which is under way.", validator=validators.Number(gte=0))] = 0,
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> int:
    """Change the tenant's data key and encrypt all its secrets anew, while they are used; status 1 when some could not be.

    Interrupted, it goes on with `--generation`, and everything stays readable meanwhile.
    """
    with open_api(connection or Connection()) as api:
        wanted = generation or int(api.get("/v1/secret-keys")["generation"]) + 1
        done = _until_finished(api, "/v1/secret-keys", {"generation": wanted}, what=f"generation {wanted}")
    for each in done["damaged"]:
        say(f"{each} is damaged and was left as it is: set the secret again", style="red")
    _show_progress(done, f"generation {done['generation']}: all {done['total'] - done['left']} versions are encrypted with it", output)
    return 1 if done["damaged"] else 0


@secrets.command(name="rewrap")
def rewrap(*, connection: Connection | None = None, output: OutputFlag = "table") -> int:
    """Bring the data keys of all tenants under the current key-encryption key; status 1 when some could not be."""
    with open_api(connection or Connection()) as api:
        done = _until_finished(api, "/v1/key-encryption/rewrap", {}, what="data keys")
    for each in done["failed"]:
        say(f"tenant {each['tenant']}, generation {each['generation']}: {each['reason']}", style="red")
    _show_progress(done, f"{done['kek']} {done['key_id']}: wraps {done['total'] - done['left']} of {done['total']} data keys", output)
    return 1 if done["failed"] else 0


@secrets.command(name="status")
def status(*, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """Show the generation of the tenant's data key, and how far a change of it has come."""
    with open_api(connection or Connection()) as api:
        found: Json = api.get("/v1/secret-keys")
    _show_progress(
        found, f"generation {found['generation']}: {found['left']} of {found['total']} versions are still to be encrypted", output
    )


def _until_finished(api: Api, path: str, body: Json, *, what: str) -> Json:
    while True:
        done: Json = api.post(path, body)
        if done["finished"]:
            return done
        say(f"{what}: {plain(done['total'] - done['left'])} of {plain(done['total'])}")


def _show_progress(found: Json, text: str, output: OutputFlag) -> None:
    if output != "table":
        show_value(found, output)
    else:
        say(text)


def _value(file: Path | None) -> str:
    """What is read, without the line end that tools put behind it."""
    if file is None and sys.stdin.isatty():
        typed = getpass.getpass("Value (not shown): ")
        if typed != getpass.getpass("Again: "):
            raise UsageError("the two values differ", hint="Nothing was set.")
        return typed
    try:
        content = sys.stdin.buffer.read() if file is None or str(file) == "-" else file.read_bytes()
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UsageError("the value is not text in UTF-8", hint="Encode what is binary, e.g. with base64.") from error
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}") from error
