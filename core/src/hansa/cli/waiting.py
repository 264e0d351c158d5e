"""`hansa wait`: until an object is as it should be."""

import time
from collections.abc import Callable
from typing import Annotated

from cyclopts import Parameter, validators

from hansa import clock
from hansa.cli.client import Api, Json, open_api, part, segment
from hansa.cli.connection import Connection
from hansa.cli.objects import inside, resolve
from hansa.cli.output import say
from hansa.cli.usage import UsageError
from hansa.errors import NotFound

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
TIMED_OUT = 1


def wait(
    target: Annotated[str, Parameter(name="KIND/NAME")],
    *,
    for_: Annotated[
        str, Parameter(name="--for", help="condition=TYPE, condition=TYPE=STATUS, revision=NUMBER or delete.")
    ] = "condition=Ready",
    timeout: Annotated[float, Parameter(help="Seconds; then the status is 1.", validator=validators.Number(gte=0))] = 120.0,
    connection: Connection | None = None,
) -> int:
    """Wait until an object has a condition, serves a revision, or is gone; status 1 when that takes longer than the timeout."""
    word, slash, name = target.partition("/")
    kind = resolve(word)
    if not slash or kind in ("run", "session"):
        raise UsageError(f"{target!r} is no KIND/NAME of an object", hint="It looks like agent/assistant.")
    reached = _goal(for_)
    connection = inside(connection or Connection(), name) if kind == "Tenant" else connection
    until, pause = clock.monotonic() + timeout, FIRST_PAUSE
    with open_api(connection or Connection()) as api:
        while True:
            found = _look(api, kind, name)
            done, said = reached(found)
            if done:
                say(f"{kind.lower()}/{name}: {said}")
                return 0
            left = until - clock.monotonic()
            if left <= 0:
                say(f"{kind.lower()}/{name} is not at {for_} after {timeout:g} s: {said}", style="red")
                return TIMED_OUT
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, LONGEST_PAUSE)


def _look(api: Api, kind: str, name: str) -> Json | None:
    try:
        return api.get(f"/v1/objects/{kind}/{segment(name)}", patience=10.0)
    except NotFound:
        return None


def _goal(text: str) -> Callable[[Json | None], tuple[bool, str]]:
    """What is waited for: whether an object is there, and how it is. Raises `UsageError`."""
    what, _, value = text.partition("=")
    if text == "delete":
        return lambda found: (found is None, "it is gone" if found is None else "it is still there")
    if what == "revision" and value.isdecimal():
        return lambda found: _serves(found, int(value))
    if what == "condition" and value:
        kind, _, status = value.partition("=")
        return lambda found: _has(found, kind, status or "True")
    raise UsageError(f"--for {text!r} is not understood", hint="condition=Ready, condition=Ready=False, revision=3 or delete.")


def _serves(found: Json | None, revision: int) -> tuple[bool, str]:
    if found is None:
        return False, "there is no such object"
    serving = part(part(found, "status"), "revision").get("serving")
    return isinstance(serving, int) and serving >= revision, f"it serves revision {serving or 'none'}"


def _has(found: Json | None, kind: str, status: str) -> tuple[bool, str]:
    if found is None:
        return False, "there is no such object"
    conditions: list[Json] = part(found, "status").get("conditions") or []
    known = next((each for each in conditions if str(each.get("type")).lower() == kind.lower()), None)
    if known is None:
        return False, f"it has no condition {kind}"
    is_new = known.get("observedGeneration") in (None, found.get("generation"))
    told = f"{known['type']} is {known['status']}: {known.get('reason', '')} {known.get('message', '')}".rstrip(": ")
    return is_new and str(known["status"]).lower() == status.lower(), told if is_new else f"{told}, of what it was before"
