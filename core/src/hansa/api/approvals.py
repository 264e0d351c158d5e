"""/v1/approvals: what people are asked by runs."""

from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post

from hansa.api import answers, bodies, requests
from hansa.api.services import STANDING, AnyRequest, services
from hansa.audit.model import Action
from hansa.auth.model import Principal
from hansa.runs.approvals import Decision


class Decide(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`approve` or `deny` a call, or `answer` a question with any JSON value."""

    decision: Literal["approve", "deny", "answer"]
    comment: Annotated[str, msgspec.Meta(max_length=2000, pattern=r"^[^\x00]*$")] = ""
    answer: Any = msgspec.UNSET


class Approval(msgspec.Struct, frozen=True):
    """What a run asks. `subject`: the call literally (agent, name, arguments), or the question."""

    id: UUID
    run_id: UUID
    step: str
    kind: str
    subject: dict[str, Any]
    state: str
    decided_by: str | None
    comment: str | None
    answer: Any
    requested_at: str
    expires_at: str | None
    decided_at: str | None


@get("/v1/approvals", opt={"permission": "approvals:read", "within": STANDING, "answer": list[Approval], "query": {"state": str}})
async def list_approvals(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Approvals and questions, newest first; `?state=pending` for those that wait for someone."""
    asked = requests.query(request)
    before = requests.cursor(request, principal)
    page = await services(request).approvals.page(
        principal, asked.get("state"), before=UUID(before) if before else None, limit=requests.limit(request)
    )
    return answers.page(request, principal, page.data, page.last)


@get("/v1/approvals/{approval_id:str}", opt={"permission": "approvals:read", "within": STANDING, "answer": Approval})
async def get_approval(request: AnyRequest, principal: Principal, approval_id: str) -> Response[bytes]:
    """One approval or question."""
    return answers.text(await services(request).approvals.get(principal, requests.uuid(approval_id, "approval")))


@post(
    "/v1/approvals/{approval_id:str}/decide",
    status_code=200,
    opt={"audit": Action.APPROVAL_DECIDED, "permission": "approvals:decide", "within": STANDING, "body": Decide, "answer": Approval},
)
async def decide_approval(request: AnyRequest, principal: Principal, approval_id: str) -> Response[bytes]:
    """Decide, once: the run goes on with it."""
    key = await requests.idempotency_key(request)
    asked = await bodies.body(request, Decide)
    answer = bodies.answer_of(asked.answer, wanted=asked.decision == "answer", decision="decision: answer")
    decision = Decision(asked.decision, asked.comment, answer)
    return answers.kept(await services(request).approvals.decide(principal, requests.uuid(approval_id, "approval"), decision, key=key))


HANDLERS = (list_approvals, get_approval, decide_approval)
