"""Everything that leaves a process goes through the egress door, and no plugin starts programs of its own: no other way is written.

What the import contracts can't see: doors of the standard library, and clients made of a library that may be imported for its types.
"""

import ast
import re
from pathlib import Path

from rules.source_tree import SourceTree, made_up, repository

DOOR = "core/src/hansa/egress/"
OWN_SERVERS = "core/src/hansa/dev/"
"""Asks the servers that it has started itself, on this machine."""
LISTENING = "core/src/hansa/server/listening.py"
"""Looks up the address that it listens on."""
GIT = "plugins/tools/src/hansa_tools/git_log.py"
"""Runs git over repositories that the operator listed, with every way out shut."""

SOCKETS = frozenset(
    {"open_connection", "create_connection", "open_unix_connection", "getaddrinfo", "gethostbyname", "create_datagram_endpoint"}
)
MODULES = frozenset({"http.client", "urllib.request", "smtplib", "ftplib", "imaplib", "poplib", "telnetlib", "xmlrpc.client"})
CLIENTS = frozenset({"AsyncClient", "Client", "get", "post", "put", "patch", "delete", "head", "options", "request", "stream"})
PROGRAMS = re.compile(
    r"\b(create_subprocess_(exec|shell)|subprocess\.(run|Popen|call|check_\w+)|os\.(system|popen|exec\w+|spawn\w+|posix_spawnp?))\b"
)


def other_ways_out(tree: SourceTree) -> list[str]:
    """Connections, look-ups and clients outside of the door."""
    found: list[str] = []
    for path in tree.product():
        if path.startswith((DOOR, OWN_SERVERS)) or path == LISTENING:
            continue
        for node in ast.walk(tree.parsed(path)):
            said = _way_out(node)
            if said:
                found.append(f"{path}:{getattr(node, 'lineno', 1)}: {said}: ask through hansa.egress, or the client that is handed in")
    return found


def programs_of_plugins(tree: SourceTree) -> list[str]:
    """Programs that a plugin starts outside of the cage."""
    return [
        f"{path}:{number}: {match.group()}: run it by context.cage"
        for path in tree.product()
        if path.startswith("plugins/") and path != GIT
        for number, line in enumerate(tree.text(path).splitlines(), start=1)
        if (match := PROGRAMS.search(line))
    ]


def _way_out(node: ast.AST) -> str:
    match node:
        case ast.Call(func=ast.Attribute(attr=name)) if name in SOCKETS:
            return name
        case ast.Call(func=ast.Attribute(value=ast.Name(id="httpx2"), attr=name)) if name in CLIENTS:
            return f"httpx2.{name}"
        case ast.Import(names=names) if any(each.name in MODULES for each in names):
            return next(each.name for each in names if each.name in MODULES)
        case ast.ImportFrom(module=str(module), names=names):
            inner = {module, *(f"{module}.{each.name}" for each in names)} & MODULES
            return next(iter(inner), "")
        case _:
            return ""


def test_nothing_leaves_by_another_way() -> None:
    assert other_ways_out(repository()) == []


def test_no_plugin_starts_programs_of_its_own() -> None:
    assert programs_of_plugins(repository()) == []


def test_every_other_way_out_is_found(tmp_path: Path) -> None:
    ways = {
        "a": "import asyncio\nasync def f(): await asyncio.open_connection('h', 1)\n",
        "b": "import socket\nsocket.create_connection(('h', 1))\n",
        "c": "import httpx2\nclient = httpx2.AsyncClient()\n",
        "d": "import httpx2\nhttpx2.get('https://example.com')\n",
        "e": "import http.client\n",
        "f": "from urllib import request\n",
        "g": "from urllib.request import urlopen\n",
        "h": "import asyncio\nasyncio.get_running_loop().getaddrinfo('h', 1)\n",
    }
    fine = {"core/src/hansa/egress/dial.py": ways["h"], "core/src/hansa/dev/nats.py": ways["a"], "tests/x.py": ways["c"]}
    fine |= {"plugins/a/src/hansa_a/types.py": "import httpx2\ndef f(client: httpx2.AsyncClient) -> None: client.get('x')\n"}
    tree = made_up(tmp_path, {**fine, **{f"core/src/hansa/runs/{name}.py": text for name, text in ways.items()}})
    assert [line.split(":")[0][-4:] for line in other_ways_out(tree)] == [f"{name}.py" for name in ways]


def test_a_program_of_a_plugin_is_found(tmp_path: Path) -> None:
    text = "import asyncio, os, subprocess\nasyncio.create_subprocess_exec('x')\nsubprocess.run(['x'])\nos.execve('x', [], {})\n"
    tree = made_up(tmp_path, {"plugins/a/src/hansa_a/a.py": text, GIT: text, "core/src/hansa/tools/cage/launcher.py": text})
    assert [line.split(":")[:2] for line in programs_of_plugins(tree)] == [["plugins/a/src/hansa_a/a.py", str(line)] for line in (2, 3, 4)]
