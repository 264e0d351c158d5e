"""The functions and views of the schema as this code has them: one text each, in `definitions/`. Revisions make tables; `hansa migrate`
brings the definitions after them, all or none.

Which ones a database has is said there, so that no process works with others than its own. Must not know Alembic: serving processes read
this. Warning: who changes a definition runs `make generate`, which numbers the edition.
"""

import hashlib
import re
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable

import asyncpg
import msgspec

from hansa.db.pool import AWAY, Connection
from hansa.errors import Misconfigured

TOPICS = (
    *("tenants", "values", "log", "messages", "waits", "control", "accept", "drive", "agents", "rollout"),
    *("retention", "limits", "budgets", "audit", "secrets", "messaging"),
)
"""The files in the order in which they are brought: a function in SQL comes after those that it calls; one in PL/pgSQL may call any."""
EDITION = "edition.txt"
"""The file with the number of the edition and its digest."""
MADE = re.compile(r"^CREATE OR REPLACE (FUNCTION|VIEW) hansa\.(\w+)", re.MULTILINE)
TOKEN = re.compile(r"--[^\n]*|'(?:[^']|'')*'|\"[^\"]*\"|\$(\w*)\$.*?\$\1\$|;", re.DOTALL)
"""A semicolon that ends a statement, or what may have others in it."""
BETWEEN = re.compile(r"(?:\s+|--[^\n]*)*")
STANDING = "SELECT edition, definitions AS digest FROM hansa.installation"
"""Which ones a database has."""
MISSING = """
SELECT d.kind, d.name FROM unnest($1::text[], $2::text[]) AS d(kind, name)
WHERE NOT CASE d.kind WHEN 'VIEW' THEN EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = 'hansa'::regnamespace AND c.relname = d.name)
  ELSE EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'hansa'::regnamespace AND p.proname = d.name) END ORDER BY d.name
"""
"""Which of these (kinds, names: see `Definitions.made`) it has not, although it says so."""


class Statement(msgspec.Struct, frozen=True):
    """A statement, and the line in its topic's file in which it begins, from 1."""

    topic: str
    line: int
    text: str

    def place(self, characters: int = 0) -> str:
        """Where it is, or what comes after so many characters of it."""
        line = self.line + self.text.count("\n", 0, characters)
        return f"definitions/{self.topic}.sql:{line}"


class Definitions(msgspec.Struct, frozen=True):
    """An edition of all definitions. `edition` grows with each change; `digest`: the SHA-256 of the files, hexadecimal; `texts`: topic ->
    its file."""

    edition: int
    digest: str
    texts: dict[str, str]

    @property
    def made(self) -> list[tuple[str, str]]:
        """What they make: (FUNCTION or VIEW, its name in the schema hansa)."""
        return [(match[1], match[2]) for text in self.texts.values() for match in MADE.finditer(text)]

    def statements(self) -> Iterator[Statement]:
        """In order, without the comments between them."""
        for topic, text in self.texts.items():
            begin = _begin(text, 0)
            for token in TOKEN.finditer(text):
                if token[0] == ";":
                    yield Statement(topic, 1 + text.count("\n", 0, begin), text[begin : token.end()])
                    begin = _begin(text, token.end())
            if begin < len(text):
                yield Statement(topic, 1 + text.count("\n", 0, begin), text[begin:])


def read() -> Definitions:
    """Those of this code."""
    return read_from(resources.files("hansa.db.definitions"))


def read_from(folder: Traversable) -> Definitions:
    """Those of a folder, which has a file for each topic and `EDITION`."""
    texts = {topic: folder.joinpath(f"{topic}.sql").read_text("utf-8") for topic in TOPICS}
    edition = folder.joinpath(EDITION).read_text("utf-8").split()[0]
    return Definitions(int(edition), hashlib.sha256("\0".join(texts.values()).encode()).hexdigest(), texts)


async def bring(connection: Connection, wanted: Definitions) -> None:
    """Make these the definitions of a database, in the caller's transaction, as the owner; nothing is touched where they are.
    Raises `Misconfigured`, naming file and line, for one that PostgreSQL refuses, and where a newer version has brought its own."""
    (standing,) = await connection.fetch(STANDING)
    if standing["edition"] > wanted.edition:
        raise Misconfigured(
            f"the database has functions of edition {standing['edition']}, which this version of Hansa does not know "
            f"(newest known: {wanted.edition})",
            hint="Run the newer version of Hansa that made it, or restore a backup from before.",
        )
    if standing["digest"] == wanted.digest and not await connection.fetch(MISSING, *zip(*wanted.made, strict=True)):
        return
    for statement in wanted.statements():
        try:
            await connection.execute(statement.text)
        except AWAY:
            raise
        except asyncpg.PostgresError as error:
            place = statement.place(int(error.position or 1) - 1)
            raise Misconfigured(f"{place}: PostgreSQL refuses it: {error}", hint="Nothing was changed.") from error
    await connection.execute("UPDATE hansa.installation SET edition = $1, definitions = $2", wanted.edition, wanted.digest)


def _begin(text: str, after: int) -> int:
    match = BETWEEN.match(text, after)
    return match.end() if match else after
