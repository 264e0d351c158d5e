"""Checkpoints: signed statements that a chain had a hash at a row, kept where who owns the database does not rule.

The newest one binds every row before it. An older one is only looked at to say where a chain that was hashed anew begins to differ.
"""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from hansa.artifacts.content import Place, place_of
from hansa.audit.chain import Finding, Kind
from hansa.audit.signing import Signer, is_signed
from hansa.settings import Settings, data_dir

SUFFIX = ".json"
DIGITS = 20


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Row `seq` of the tenant was written `at` and has this hash. `why`: `sealed`, or `dropped` of the last row that retention removed."""

    tenant: str
    seq: int
    at: str
    hash: str
    made_at: str
    why: str = "sealed"
    public_key: str = ""
    signature: str = ""


def signed(checkpoint: Checkpoint, signer: Signer) -> Checkpoint:
    """The same, signed."""
    named = msgspec.structs.replace(checkpoint, public_key=signer.public_key)
    return msgspec.structs.replace(named, signature=signer.sign(_signed_text(named)))


def fault(checkpoint: Checkpoint, tenant: str, trusted: Collection[str]) -> str:
    """What is wrong with a checkpoint by itself; nothing: an empty text."""
    if checkpoint.tenant != tenant:
        return f"it is one of tenant {checkpoint.tenant}"
    if checkpoint.public_key not in trusted:
        return f"it is signed with a key that is not known here: {checkpoint.public_key or 'none'}"
    if not is_signed(_signed_text(checkpoint), checkpoint.signature, checkpoint.public_key):
        return "its signature is wrong"
    return ""


def _signed_text(checkpoint: Checkpoint) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(checkpoint, signature=""), order="sorted")


class Outside:
    """Checkpoints in a folder or a bucket, an object each: `TENANT/NUMBER.json`. Raises `Unavailable` when it can't be reached."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.name = place.name

    async def keep(self, checkpoint: Checkpoint) -> None:
        """Write one; durable when this returns."""
        await self._place.put(_key(checkpoint.tenant, checkpoint.seq), msgspec.json.encode(checkpoint, order="sorted") + b"\n")

    async def numbers(self, tenant: str) -> list[int]:
        """The rows that have one, in order."""
        names = [key.rpartition("/")[2].removesuffix(SUFFIX) for key in await self._place.keys(f"{tenant}/")]
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    async def read(self, tenant: str, seq: int) -> Checkpoint | None:
        """The checkpoint of a row; None: there is none, or it can't be read as one."""
        body = await self._place.get(_key(tenant, seq))
        try:
            return None if body is None else msgspec.json.decode(body, type=Checkpoint)
        except msgspec.DecodeError:
            return None


def open_outside(settings: Settings) -> Outside:
    """The place that the settings name. Raises `Misconfigured`."""
    artifacts = msgspec.structs.replace(settings.artifacts, url=settings.audit.url)
    return Outside(place_of(artifacts, data_dir(settings).resolve() / "audit", variable="HANSA_AUDIT_URL"))


def _key(tenant: str, seq: int) -> str:
    return f"{tenant}/{seq:0{DIGITS}d}{SUFFIX}"


class Judged(msgspec.Struct, frozen=True):
    """What the checkpoints outside say of a chain: the newest one that bears it out, or what is wrong."""

    checkpoint: Checkpoint | None = None
    finding: Finding | None = None


class Judge:
    """Holds a tenant's chain against what is kept outside."""

    def __init__(self, outside: Outside, tenant: str, trusted: Collection[str]) -> None:
        self._outside = outside
        self._tenant = tenant
        self._trusted = trusted

    async def judge(self, numbers: Sequence[int], hashes: Mapping[int, str], last: int) -> Judged:
        """`numbers`: the rows with a checkpoint; `hashes`: those of these rows as they are now; `last`: the number of the last row."""
        if not numbers:
            return Judged()
        newest = numbers[-1]
        if newest > last:
            detail = f"a checkpoint outside covers row {newest}, and the trail ends at row {last}"
            faulty = await self._fault(newest)
            kind, detail = (Kind.CHECKPOINT, faulty) if faulty else (Kind.MISSING, detail)
            return Judged(finding=Finding(last + 1, kind, detail))
        # What lies before the first row that is there, or before an export begins, was not seen.
        seen = [number for number in numbers if number in hashes]
        if not seen:
            return Judged()
        found, faulty = await self._agrees(seen[-1], hashes)
        if faulty:
            return Judged(finding=Finding(seen[-1], Kind.CHECKPOINT, faulty))
        if found is not None:
            return Judged(found)
        first = await self._first_that_differs(seen, hashes)
        before = seen[first - 1] if first else 0
        detail = (
            f"the chain fits together and is not the one that was sealed: a row between rows {before + 1} and {seen[first]} differs, "
            "and all that follows was hashed anew"
        )
        return Judged(finding=Finding(before + 1, Kind.RESEALED, detail))

    async def _first_that_differs(self, seen: Sequence[int], hashes: Mapping[int, str]) -> int:
        low, high = 0, len(seen) - 1
        while low < high:
            middle = (low + high) // 2
            agreed, _ = await self._agrees(seen[middle], hashes)
            low, high = (middle + 1, high) if agreed is not None else (low, middle)
        return low

    async def _agrees(self, number: int, hashes: Mapping[int, str]) -> tuple[Checkpoint | None, str]:
        """The checkpoint of a row if it bears out the chain, and what is wrong with it by itself."""
        faulty = await self._fault(number)
        if faulty:
            return None, faulty
        found = await self._outside.read(self._tenant, number)
        return (found, "") if found is not None and found.hash == hashes[number] else (None, "")

    async def _fault(self, number: int) -> str:
        found = await self._outside.read(self._tenant, number)
        why = "it can't be read" if found is None else fault(found, self._tenant, self._trusted)
        if not why and found is not None and found.seq != number:
            why = f"it is one of row {found.seq}"
        return f"the checkpoint of row {number} is not good: {why}" if why else ""
