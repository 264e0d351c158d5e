"""`hansa export`: objects as manifests that apply again to the same; no status, and no secrets, which objects never hold."""

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from hansa.apply.model import ORDER
from hansa.cli.client import Api, Json, open_api, segment
from hansa.cli.connection import Connection
from hansa.cli.objects import inside, resolve
from hansa.cli.output import show_value, write
from hansa.cli.usage import UsageError

MADE = "platform"
"""Manager of what nobody wrote: the first tenant, and regions that processes made."""


def export(
    *objects: Annotated[str, Parameter(help="KIND/NAME, or a KIND for all of it; left out: all objects of the tenant.")],
    connection: Connection | None = None,
) -> None:
    """Write objects as YAML that `hansa apply` takes."""
    with open_api(connection or Connection()) as api:
        for number, kept in enumerate(_found(api, objects, connection or Connection())):
            write("---\n" if number else "")
            show_value(kept["manifest"], "yaml")


def _found(api: Api, objects: Sequence[str], connection: Connection) -> list[Json]:
    if not objects:
        kept = [each for each in api.entries("/v1/objects", {}, None) if each["manager"] != MADE]
    else:
        kept = [each for text in objects for each in _named(api, text, connection)]
    return sorted(kept, key=lambda each: ORDER.index(each["kind"]))


def _named(api: Api, text: str, connection: Connection) -> list[Json]:
    word, slash, name = text.partition("/")
    kind = resolve(word)
    if kind in ("run", "session"):
        raise UsageError(f"a {kind} is a record and no object", hint="`hansa sessions export` writes a session.")
    if slash and kind == "Tenant":
        with open_api(inside(connection, name)) as there:
            return [there.get(f"/v1/objects/{kind}/{segment(name)}")]
    if slash:
        return [api.get(f"/v1/objects/{kind}/{segment(name)}")]
    return [each for each in api.entries("/v1/objects", {"kind": kind}, None) if each["manager"] != MADE]
