"""What people are asked by runs: may this call be made, or a question. Shown literally, decided once.

The decision is written to the run's log in the same transaction, so a run that was approved can't forget it, and the call that is
made is the one that was shown: a replay that would make another is refused.
"""

from typing import Any
from uuid import UUID

import msgspec

from hansa.audit.model import Action
from hansa.audit.service import record
from hansa.auth.idempotency import Answer, IdempotencyKey, once
from hansa.auth.model import Principal
from hansa.bus.connection import Bus
from hansa.db.pool import Connection, Database
from hansa.errors import Conflict, Invalid
from hansa.runs import store
from hansa.runs.admitting import store as lists
from hansa.runs.admitting.service import admit, missing
from hansa.runs.log.keeping import Values
from hansa.runs.log.showing import Kind, shown
from hansa.runs.service import Page
from hansa.runs.timers import ring_for
from hansa.runs.values import split_whole

STATES = ("pending", "approved", "denied", "answered", "expired", "canceled")
DECISIONS = {"approve": "approved", "deny": "denied", "answer": "answered"}


class Decision(msgspec.Struct, frozen=True):
    """What a person decides: `approve` or `deny` a call, `answer` a question with any JSON value."""

    decision: str
    comment: str = ""
    answer: Any = None


class Approvals:
    """Approvals and questions of this region."""

    def __init__(self, database: Database, bus: Bus, region: str, *, values: Values) -> None:
        self._database = database
        self._values = values
        self._bus = bus
        self._region = region

    async def get(self, principal: Principal, approval_id: UUID) -> str:
        """An approval as JSON text."""
        await admit(self._database, principal, "approvals:read", what="approval", id=approval_id)
        async with self._database.tenant(principal.tenant_id) as connection:
            body = await store.find_approval(connection, approval_id)
        if body is None:
            raise missing("approval", approval_id)
        return (await self._shown(principal, [body]))[0]

    async def page(self, principal: Principal, state: str | None, *, before: UUID | None, limit: int) -> Page:
        """Approvals, newest first."""
        if state not in (None, *STATES):
            raise Invalid(f"state {state!r} is not one of {', '.join(STATES)}")
        async with self._database.tenant(principal.tenant_id) as connection:
            within = principal.reach("approvals:read")
            found = await lists.page(connection, lists.APPROVALS, state, before=before, limit=limit, within=within)
        return Page(await self._shown(principal, found.data), found.last)

    async def decide(self, principal: Principal, approval_id: UUID, decision: Decision, *, key: IdempotencyKey | None) -> Answer:
        """Decide once. Raises `NotFound`, `Invalid` for a decision of the wrong kind, `Conflict` when it was decided or has expired."""
        await admit(self._database, principal, "approvals:decide", what="approval", id=approval_id)
        told: list[tuple[str, str]] = []
        text, taken = split_whole(decision.answer)
        await self._values.keep(principal.tenant_id, taken)

        async def operation(connection: Connection) -> tuple[int, str]:
            found = await store.find_approval(connection, approval_id)
            if found is None:
                raise missing("approval", approval_id)
            approval = msgspec.json.decode(found, type=_Approval)
            _check(approval, decision)
            outcome = await store.settle_approval(
                connection,
                principal,
                approval_id,
                state=DECISIONS[decision.decision],
                comment=decision.comment or None,
                answer=text.decode(),
            )
            if outcome.startswith("conflict.") or outcome == "gone":
                state = outcome.removeprefix("conflict.")
                raise Conflict(f"approval {approval_id} is {state} already", hint="`hansa approvals` lists what is pending.")
            told.append((outcome, str(approval.run_id)))
            body = await store.find_approval(connection, approval_id)
            # Not the answer, nor what was asked: these are content, and stand in the run's log.
            now = {"state": DECISIONS[decision.decision], "comment": decision.comment, "run": approval.run_id, "kind": approval.kind}
            await record(
                connection,
                principal.did(Action.APPROVAL_DECIDED, f"Approval/{approval_id}", before={"state": "pending"}, after=now),
            )
            return 200, str(body)

        answer = await once(self._database, principal, key, operation)
        for outcome, run_id in told:
            await ring_for(self._bus, self._region, outcome, run_id, bell=self._database.of(principal.tenant_id).bell)
        return Answer(answer.status, (await self._shown(principal, [answer.body]))[0], replayed=answer.replayed)

    async def _shown(self, principal: Principal, bodies: list[str]) -> list[str]:
        return await shown(self._values, principal.tenant_id, Kind.APPROVAL, bodies)


class _Approval(msgspec.Struct):
    id: UUID
    run_id: UUID
    kind: str


def _check(approval: _Approval, decision: Decision) -> None:
    allowed = ("answer",) if approval.kind == "question" else ("approve", "deny")
    if decision.decision not in allowed:
        raise Invalid(
            f"{approval.id} is a {'question' if approval.kind == 'question' else 'call to be approved'}: "
            f"decision must be {' or '.join(allowed)}, got {decision.decision!r}"
        )
