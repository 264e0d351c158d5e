"""What is said of a trail that was looked at, by a control plane or by an auditor elsewhere."""

import msgspec

from hansa.audit.chain import Finding, Mark, Verifier
from hansa.audit.checkpoints import Checkpoint, Judged

FORMAT = "hansa-audit/1"
"""Of an export."""
UNSEALED = "no checkpoint outside bears this trail out: whoever could change all of its rows, and hash them anew, would not be noticed"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a trail is as it was written. `rows` were looked at, from `first` to `last`; those before were removed by retention.

    `checkpoint`: the newest one outside that bears it out; rows after `sealed` are covered by none yet. `place`: where they lie.
    """

    ok: bool
    tenant: str
    rows: int
    first: int
    last: int
    sealed: int
    place: str
    checkpoint: Checkpoint | None = None
    finding: Finding | None = None
    warnings: tuple[str, ...] = ()


def verdict(verifier: Verifier, start: Mark, place: str, *, judged: Judged, finding: Finding | None) -> Verdict:
    """Of rows after `start`: what was found in the chain itself, else what the checkpoints of a place say."""
    wrong = finding or judged.finding
    unsealed = judged.checkpoint is None and wrong is None and verifier.rows > 0
    return Verdict(
        ok=wrong is None,
        tenant=verifier.tenant,
        rows=verifier.rows,
        first=start.seq + 1,
        last=verifier.seq,
        sealed=judged.checkpoint.seq if judged.checkpoint is not None else 0,
        place=place,
        checkpoint=judged.checkpoint,
        finding=wrong,
        warnings=(UNSEALED,) if unsealed else (),
    )
