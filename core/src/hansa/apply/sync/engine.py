"""One pass: look at the source, apply what differs, then delete what it no longer says, then tell what came of it.

Nothing that matters is kept here: a pass that is killed anywhere is made good by the next one, in this process or another, since what
was applied is known by the control plane, and the commit is told to it only when all of that commit was sent.

Two at once do no harm. What they do is the same, unless one is still busy with a commit when the other has seen a newer one. It deletes
nothing then, for before it does it looks whether its commit is still the newest, after it has asked what there is; and what it has put
back to the older commit it puts right at once, for after it has changed something it looks again.
"""

from collections.abc import Mapping, Sequence

import msgspec

from hansa import clock
from hansa.apply.manifests import Manifest
from hansa.apply.model import Applied
from hansa.apply.repository.failures import RepositoryFailure
from hansa.apply.repository.model import File, Source, Tree, Unreadable
from hansa.apply.sync import contents, deletion
from hansa.apply.sync.contents import Contents
from hansa.apply.sync.model import (
    APPLYING,
    CHANGING,
    CONTROL_PLANE_AWAY,
    DELETION_REFUSED,
    FAILING,
    NO_MANIFESTS,
    REFUSED,
    SYNCED,
    Api,
    Item,
    Name,
    Record,
    Report,
)
from hansa.errors import (
    Conflict,
    FieldError,
    Forbidden,
    HansaError,
    Invalid,
    LimitExceeded,
    Malformed,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

MAX_ERRORS = 100
"""Errors that are told of one pass; the rest is counted."""
BATCH_NAMES = 5000
"""Objects that are deleted in one request: all of them, as a rule, for the control plane counts what one request deletes."""
HEARTBEAT_SECONDS = 60.0
"""After so many seconds the control plane is told that the source is still looked at, although nothing is new."""


class Sync:
    """One source and one control plane. Use `once` again and again, one at a time."""

    def __init__(self, source: Source, api: Api, *, allow_mass_delete: bool = False) -> None:
        self._source = source
        self._api = api
        self._allow = allow_mass_delete
        self._record: Record | None = None
        self._known = False
        self._head = ""
        self._tree: Tree | None = None
        self._contents: dict[str, Contents] = {}
        self._pending: set[str] = set()
        self._refused: dict[str, tuple[FieldError, ...]] = {}
        self._failed_names: set[tuple[str, str]] = set()
        self._sweep = True
        self._decision = deletion.Decision()
        self._undeleted: tuple[FieldError, ...] = ()
        self._told = 0.0

    async def once(self, *, full: bool = False) -> Report:
        """A pass; `full`: what has not changed is applied again too, and what is owned is looked through. Raises no `HansaError`."""
        try:
            if not self._known:
                self._record = await self._api.record()
                self._known = True
            head, tree = await self._look()
            is_still = tree is self._tree and not (full or self._pending or self._sweep)
            outcomes, read = ([], 0) if is_still else await self._pass(head, tree, full=full)
            overtaken = any(each.action in CHANGING for each in outcomes) and await self._is_overtaken(head)
        except RepositoryFailure as error:
            return await self._tell(self._now(error.reason, f"{error.detail}. {error.hint}".rstrip(". ")))
        except (Unauthenticated, Forbidden) as error:
            return Report(record=self._now(REFUSED, error.detail))
        except (Unavailable, LimitExceeded) as error:
            return Report(record=self._now(CONTROL_PLANE_AWAY, error.detail))
        except HansaError as error:  # such as a password file that can't be read
            return await self._tell(self._now(FAILING, error.detail))
        report = await self._tell(self._summary(tree, outcomes), outcomes, read)
        return msgspec.structs.replace(report, overtaken=overtaken)

    async def _look(self) -> tuple[str, Tree]:
        head = await self._source.look()
        if self._tree is not None and head == self._head:
            return head, self._tree
        since = self._record.commit if self._record else ""
        return head, await self._source.tree(head, since=since, known=self._tree)

    async def _is_overtaken(self, head: str) -> bool:
        try:
            return await self._source.look() != head
        except RepositoryFailure:
            return False  # all that was to be done is done; the next pass says what is wrong

    async def _pass(self, head: str, tree: Tree, *, full: bool) -> tuple[list[Applied], int]:
        manifests = await self._understand(tree, await self._where(tree, full=full))
        self._head, self._tree = head, tree
        found = contents.places(self._contents)
        items = [item for path in sorted(self._pending) for item in self._sendable(manifests[path], found)]
        self._failed_names = {(name.kind, name.name) for name, where in found.items() if len(where) > 1 or where[0][1].errors}
        self._refused = {}
        outcomes: list[Applied] = []
        if items:
            await self._begin(tree.commit)
        for batch in contents.batches(contents.in_order(items)):
            outcomes += await self._apply(tree.commit, batch)
        # What failed is sent again at the next pass, whatever it was that it waits for, and what was written twice when it no longer is.
        self._pending = {*self._refused, *(path for where in found.values() if len(where) > 1 for path, _ in where)}
        if outcomes and (self._decision.waiting or self._decision.refusal):
            self._sweep = True
        if self._sweep:
            outcomes += await self._delete(head, tree.commit, set(found))
        return outcomes, len(manifests)

    async def _begin(self, commit: str) -> None:
        """Have the control plane know that it is no longer as the commit applied last, before it is so. Without that, whoever comes after a
        process that is killed here, and finds that commit again or one like it, would see nothing to do."""
        before = self._record
        if before is not None and before.state == SYNCED and before.commit != commit:
            told = self._now(APPLYING, f"commit {commit[:12]} is being applied")
            await self._api.keep(told)
            self._record = told

    async def _where(self, tree: Tree, *, full: bool) -> set[str]:
        """Files whose objects are applied in this pass, and those of earlier ones that were not finished. Decides whether to look for
        what is to be deleted, too."""
        if self._tree is None or full:
            self._sweep = True
        if full:
            return set(tree.files)
        if self._tree is not None:
            return {path for path, file in tree.files.items() if self._tree.files.get(path) != file}
        known = self._record
        if known is None or known.state != SYNCED or known.errors or not known.commit:
            return set(tree.files)
        before = tree.files if known.commit == tree.commit else await self._source.files_at(known.commit)
        if before is None:
            return set(tree.files)
        return {path for path, file in tree.files.items() if before.get(path) != file}

    async def _understand(self, tree: Tree, apply: set[str]) -> dict[str, tuple[Manifest, ...]]:
        """Read what has to be: the manifests of files that are applied. From here on they count as pending, until they were."""
        self._pending = {path for path in self._pending | apply if path in tree.files}
        manifests: dict[str, tuple[Manifest, ...]] = {}
        found: dict[str, Contents] = {}
        for path, file in tree.files.items():
            known = self._contents.get(path)
            if known is not None and contents.is_same(known, file) and path not in self._pending:
                found[path] = known
                continue
            found[path], read = await self._read(path, file)
            if path in self._pending:
                manifests[path] = read
        undecided = bool(self._decision.waiting or self._decision.refusal)
        if (undecided and found != self._contents) or _all_names(self._contents) - _all_names(found):
            self._sweep = True
        self._contents = found
        return manifests

    async def _read(self, path: str, file: File) -> tuple[Contents, tuple[Manifest, ...]]:
        try:
            return contents.understand(path, file, await self._source.read(path, file))
        except Unreadable as error:
            return contents.unreadable(path, file, str(error)), ()

    def _sendable(self, manifests: Sequence[Manifest], found: dict[Name, list[tuple[str, contents.Entry]]]) -> list[Item]:
        items = [contents.item(manifest) for manifest in manifests]
        return [item for item in items if len(found[item.name]) == 1 and not found[item.name][0][1].errors]

    async def _apply(self, commit: str, batch: Sequence[Item]) -> list[Applied]:
        """Apply objects together; when the request itself is refused, in halves, so that one of them does not stop the others."""
        try:
            outcomes = await self._api.apply(commit, batch)
        except (Invalid, Malformed, TooLarge) as error:
            if len(batch) > 1:
                half = len(batch) // 2
                return [*await self._apply(commit, batch[:half]), *await self._apply(commit, batch[half:])]
            outcomes = [Applied(batch[0].name.kind, batch[0].name.name, "failed", errors=(FieldError("", error.code, error.detail),))]
        for item, outcome in zip(batch, outcomes, strict=True):
            if outcome.action == "failed":
                self._refused[item.file] = (*self._refused.get(item.file, ()), *(contents.placed(error, item) for error in outcome.errors))
                if not deletion.is_in_the_way(outcome):
                    self._failed_names.add((item.name.kind, item.name.name))
        return outcomes

    async def _delete(self, head: str, commit: str, said: set[Name]) -> list[Applied]:
        try:
            owned = await self._api.owned()
        except Unavailable as error:  # perhaps only the database of one tenant: all others are still applied as ever
            self._decision = deletion.Decision(waiting=(f"nothing is deleted, for nobody can say what there is: {error.detail}",))
            return []
        self._decision = deletion.decide(owned, self._contents, said, self._failed_names)
        self._undeleted = ()
        outcomes: list[Applied] = []
        if self._decision.gone and await self._source.look() != head:
            # What we own and do not know may have come with a newer commit, by another process.
            self._decision, self._sweep = deletion.Decision(), True
            return outcomes
        if not self._decision.refusal or self._allow:
            self._decision = msgspec.structs.replace(self._decision, refusal="")
            gone = contents.against_order(self._decision.gone)
            try:
                for start in range(0, len(gone), BATCH_NAMES):
                    outcomes += await self._api.delete(commit, gone[start : start + BATCH_NAMES], allow_mass_delete=self._allow)
            except Conflict as error:
                # The control plane counts for itself, and has the last word.
                self._decision = msgspec.structs.replace(self._decision, refusal=error.detail)
        failures = [outcome for outcome in outcomes if outcome.action == "failed"]
        self._undeleted = tuple(_named(error, outcome) for outcome in failures for error in outcome.errors)
        self._sweep = bool(failures)
        return outcomes

    def _summary(self, tree: Tree, outcomes: Sequence[Applied]) -> Record:
        errors = [error for each in self._contents.values() for error in each.errors]
        errors += [error for each in self._contents.values() for entry in each.entries for error in entry.errors]
        errors += contents.twins(contents.places(self._contents))
        errors += [error for each in self._refused.values() for error in each]
        errors += self._undeleted
        told = [tree.note, *self._decision.waiting[:3]]
        if self._decision.refusal:
            told.insert(0, f"{self._decision.refusal}: say so with --allow-mass-delete if that is meant; nothing is deleted")
        if not any(each.entries for each in self._contents.values()):
            state = NO_MANIFESTS
            told.insert(0, contents.SILENCE)
        elif self._decision.refusal:
            state = DELETION_REFUSED
        else:
            state = FAILING if errors or self._decision.waiting else SYNCED
        if len(errors) > MAX_ERRORS:
            told.append(f"{len(errors)} errors, of which {MAX_ERRORS} are told")
        elif errors:
            told.append(f"{len(errors)} error{'s' if len(errors) > 1 else ''}")
        record = self._now(state, "; ".join(each for each in told if each))
        applied_at = clock.now() if any(outcome.action in CHANGING for outcome in outcomes) else record.applied_at
        return msgspec.structs.replace(record, commit=tree.commit, errors=tuple(errors[:MAX_ERRORS]), applied_at=applied_at)

    def _now(self, state: str, message: str) -> Record:
        """What is known with a state of this moment; the commit stays the one whose objects were applied last."""
        before = self._record or Record(origin=self._source.origin)
        return msgspec.structs.replace(
            before, origin=self._source.origin, ref=self._source.ref, state=str(state), message=message, errors=(), seen_at=clock.now()
        )

    async def _tell(self, record: Record, outcomes: Sequence[Applied] = (), read: int = 0) -> Report:
        """Tell the control plane what is new, and now and then that nothing is."""
        before = self._record
        now = clock.monotonic()
        is_new = before is None or any(
            getattr(before, field) != getattr(record, field) for field in ("ref", "commit", "state", "message", "errors")
        )
        objects = sum(len(each.entries) for each in self._contents.values())
        report = Report(
            record=record, outcomes=tuple(outcomes), waiting=self._decision.waiting, files=len(self._contents), objects=objects, read=read
        )
        if not is_new and not outcomes and now - self._told < HEARTBEAT_SECONDS:
            return report
        try:
            await self._api.keep(record)
        except HansaError as error:
            state = REFUSED if isinstance(error, (Unauthenticated, Forbidden)) else CONTROL_PLANE_AWAY
            return msgspec.structs.replace(report, record=msgspec.structs.replace(record, state=state, message=error.detail))
        self._record, self._told = record, now
        return report


def _all_names(all_contents: Mapping[str, Contents]) -> set[Name]:
    return {entry.name for each in all_contents.values() for entry in each.entries}


def _named(error: FieldError, outcome: Applied) -> FieldError:
    return msgspec.structs.replace(error, message=f"{outcome.kind.lower()}/{outcome.name} can't be deleted: {error.message}")
