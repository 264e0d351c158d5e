"""/v1/agents: agents and their revisions."""

from typing import Any
from uuid import UUID

import msgspec
from litestar import Response, delete, get, post

from hansa.api import answers, requests
from hansa.api.services import STANDING, AnyRequest, services
from hansa.apply.rollout.model import AgentStatus
from hansa.audit.model import Action
from hansa.auth.model import Principal


class Agent(msgspec.Struct, frozen=True):
    """An agent as the API shows it; `revision` is the one that serves, null: none does yet. Who owns it, and where it is written, as in
    `StoredObject`. `status`: see docs/rollout.md."""

    name: str
    revision: int | None
    generation: int
    manager: str
    origin: str
    commit: str
    applied_by: str
    source: dict[str, Any] | None
    description: str
    runtime: str
    model: str
    suspended: bool
    created_at: str
    updated_at: str
    manifest: dict[str, Any]
    status: AgentStatus


class Revision(msgspec.Struct, frozen=True):
    """An immutable revision of an agent. `state`: serving, served (it has, or may), checking, refused or superseded (by another one, before
    its check had ended); `reason`, `message` and `smoke_run` are of a revision that was to be checked."""

    revision: int
    digest: str
    created_at: str
    state: str
    reason: str
    message: str
    smoke_run: UUID | None
    manifest: dict[str, Any]


@get("/v1/agents", opt={"permission": "agents:read", "within": STANDING, "answer": list[Agent]})
async def list_agents(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Agents by name."""
    page = await services(request).agents.page(principal, after=requests.cursor(request, principal) or "", limit=requests.limit(request))
    return answers.page(request, principal, page.data, page.last)


@get("/v1/agents/{name:str}", opt={"permission": "agents:read", "within": STANDING, "answer": Agent})
async def get_agent(request: AnyRequest, principal: Principal, name: str) -> Response[bytes]:
    """One agent."""
    return answers.text(await services(request).agents.get(principal, name))


@post(
    "/v1/agents/{name:str}/rollout/retry",
    status_code=202,
    opt={"audit": Action.ROLLOUT_RETRIED, "permission": "objects:write", "within": STANDING, "answer": AgentStatus},
)
async def retry_rollout(request: AnyRequest, principal: Principal, name: str) -> Response[bytes]:
    """Check the agent's newest revision, which was refused, once more."""
    key = await requests.idempotency_key(request)
    return answers.kept(await services(request).rollouts.again(principal, name, key=key))


@delete("/v1/agents/{name:str}", status_code=204, opt={"audit": Action.OBJECT_DELETED, "permission": "objects:write", "within": STANDING})
async def delete_agent(request: AnyRequest, principal: Principal, name: str) -> None:
    """Delete an agent. Its runs, sessions and revisions are kept, and runs under way go on."""
    await services(request).objects.delete(principal, "Agent", name)


@get("/v1/agents/{name:str}/revisions", opt={"permission": "agents:read", "within": STANDING, "answer": list[Revision]})
async def list_revisions(request: AnyRequest, principal: Principal, name: str) -> Response[bytes]:
    """Revisions of an agent, newest first."""
    before = requests.cursor(request, principal)
    page = await services(request).agents.revisions(principal, name, before=before, limit=requests.limit(request))
    return answers.page(request, principal, page.data, page.last)


HANDLERS = (list_agents, get_agent, retry_rollout, delete_agent, list_revisions)
