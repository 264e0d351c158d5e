"""A control plane in memory that keeps objects and their owners as the real one does, a source in memory, and an end at any await."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hansa.apply.model import Applied
from hansa.apply.repository.failures import Reason, RepositoryRefused
from hansa.apply.repository.model import File, Tree, Unreadable
from hansa.apply.sync.model import Item, Name, Owned, Record
from hansa.errors import FieldError, HansaError

ORDER = ("Region", "Tenant", "ModelProvider", "ToolServer", "Agent")
ORIGIN = "https://git.example.org/agents.git//"


class Killed(BaseException):
    """The process is gone; nothing catches it."""


@dataclass
class Fate:
    """Counts awaits, and ends the process at one of them: before what it does, or after."""

    at: int = -1
    count: int = 0

    async def step(self) -> None:
        if self.count == self.at:
            raise Killed
        self.count += 1
        await asyncio.sleep(0)


@dataclass
class Plane:
    """Implements `Api`. Objects by kind and name; `broken`: names that it refuses, and why."""

    objects: dict[tuple[str, str], tuple[Item, str]] = field(default_factory=dict[tuple[str, str], tuple[Item, str]])
    source: Record | None = None
    broken: dict[str, str] = field(default_factory=dict[str, str])
    failure: HansaError | None = None
    fate: Fate = field(default_factory=Fate)
    sent: list[str] = field(default_factory=list[str])
    """Names of objects that were sent."""
    log: list[str] = field(default_factory=list[str])
    """Every write that changed something, in order."""
    kept: int = 0

    async def record(self) -> Record | None:
        await self._asked()
        return self.source

    async def keep(self, record: Record) -> None:
        await self._asked()
        self.kept += 1
        self.source = record
        await self.fate.step()

    async def owned(self) -> list[Owned]:
        await self._asked()
        return [Owned(item.name, item.file) for item, origin in self.objects.values() if origin == ORIGIN]

    async def apply(self, commit: str, items: Sequence[Item]) -> list[Applied]:
        await self._asked()
        outcomes = [self._apply(item) for item in items]
        await self.fate.step()
        return outcomes

    async def delete(self, commit: str, names: Sequence[Name], *, allow_mass_delete: bool) -> list[Applied]:
        await self._asked()
        outcomes = [self._delete(name) for name in names]
        await self.fate.step()
        return outcomes

    @property
    def names(self) -> set[str]:
        """`agent/a`: what is there, whoever owns it."""
        return {f"{kind.lower()}/{name}" for kind, name in self.objects}

    def text(self, name: str) -> Any:
        """What an agent is told."""
        return self.objects["Agent", name][0].manifest["spec"]["instructions"]

    async def _asked(self) -> None:
        await self.fate.step()
        if self.failure is not None:
            raise self.failure

    def _apply(self, item: Item) -> Applied:
        key = (item.name.kind, item.name.name)
        self.sent.append(item.name.name)
        known = self.objects.get(key)
        if item.name.name in self.broken:
            return Applied(*key, "failed", errors=(FieldError("spec", "reference", self.broken[item.name.name]),))
        if known is not None and known[1] != ORIGIN:
            return Applied(*key, "failed", errors=(FieldError("", "conflict", f"{known[1]} owns it"),))
        if known is not None and known[0].manifest == item.manifest:
            self.objects[key] = (item, ORIGIN)
            return Applied(*key, "unchanged")
        action = "configured" if known else "created"
        self.objects[key] = (item, ORIGIN)
        self.log.append(f"{action} {key[0].lower()}/{key[1]}")
        return Applied(*key, action)

    def _delete(self, name: Name) -> Applied:
        key = (name.kind, name.name)
        if key not in self.objects or self.objects[key][1] != ORIGIN:
            return Applied(*key, "absent")
        del self.objects[key]
        self.log.append(f"deleted {key[0].lower()}/{key[1]}")
        return Applied(*key, "deleted")


@dataclass
class Files:
    """Implements `Source`: files by path at a commit; `history` remembers all commits, and `blobs` all that stood in a file."""

    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    blobs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    history: dict[str, dict[str, File]] = field(default_factory=dict[str, dict[str, File]])
    failure: HansaError | None = None
    fate: Fate = field(default_factory=Fate)
    origin: str = ORIGIN
    ref: str = "main"
    reads: list[str] = field(default_factory=list[str])
    links: set[str] = field(default_factory=set[str])

    def put(self, **files: str | None) -> None:
        """Files by their name without `.yaml`; None removes one."""
        for name, text in files.items():
            if text is None:
                self.files.pop(f"{name}.yaml", None)
            else:
                self.files[f"{name}.yaml"] = text.encode()

    async def look(self) -> str:
        await self._asked()
        return self._commit()[0]

    async def tree(self, commit: str, *, since: str = "", known: Tree | None = None) -> Tree:
        await self._asked()
        return Tree(commit, self.history[commit])

    async def files_at(self, commit: str) -> dict[str, File] | None:
        await self._asked()
        return self.history.get(commit)

    async def read(self, path: str, file: File) -> bytes:
        await self._asked()
        if file.flaw:
            raise Unreadable(file.flaw)
        self.reads.append(path)
        return self.blobs[file.id]

    def _commit(self) -> tuple[str, dict[str, File]]:
        files = {
            path: File(
                f"{hash(content):x}", "is a link" if path in self.links else "", shut=path in self.links and not path.endswith(".yaml")
            )
            for path, content in sorted(self.files.items())
        }
        self.blobs |= {file.id: self.files[path] for path, file in files.items()}
        commit = f"{hash(tuple((path, file.id) for path, file in files.items())) & (1 << 64) - 1:040x}"
        self.history[commit] = files
        return commit, files

    async def _asked(self) -> None:
        await self.fate.step()
        if self.failure is not None:
            raise self.failure


GONE = RepositoryRefused(Reason.GONE, "there is no repository any more")
