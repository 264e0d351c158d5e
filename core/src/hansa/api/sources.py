"""/v1/sources: what sources of objects, such as repositories, tell of themselves."""

import re
from typing import Any

import msgspec
from litestar import Response, delete, get, put

from hansa.api import answers, bodies, requests
from hansa.api.services import AnyRequest, services
from hansa.apply.sources import ToldSource
from hansa.auth.model import Principal
from hansa.errors import Invalid

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
OWN = "a source stands in no namespace: only those of which the caller itself has told"
TOLD = "what a source tells of itself changes nothing, and comes many times an hour"


class KnownSource(msgspec.Struct, frozen=True):
    """A source as it is kept; `told_by` is who told of it last, `owner` who may (`tenant/name`): whoever was first."""

    id: str
    origin: str
    ref: str
    commit: str
    state: str
    message: str
    errors: list[dict[str, Any]]
    seen_at: str
    applied_at: str | None
    told_by: str
    owner: str


@get("/v1/sources", opt={"permission": "objects:read", "within": OWN, "answer": list[KnownSource]})
async def list_sources(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Sources by their ids."""
    after = requests.cursor(request, principal) or ""
    data, last = await services(request).sources.page(principal, after=after, limit=requests.limit(request))
    return answers.page(request, principal, data, last)


@put(
    "/v1/sources/{source_id:str}",
    status_code=200,
    opt={"unaudited": TOLD, "permission": "objects:write", "within": OWN, "body": ToldSource, "answer": KnownSource},
)
async def put_source(request: AnyRequest, principal: Principal, source_id: str) -> Response[bytes]:
    """Tell of a source what it last saw; something older than what is known changes nothing. It is whose it was first: everybody else needs
    objects:takeover."""
    if not NAME.fullmatch(source_id):
        raise Invalid(f"source {source_id[:80]!r} is not a name of up to 128 letters, digits, `.`, `_` and `-`")
    told = await bodies.body(request, ToldSource)
    return answers.text(await services(request).sources.put(principal, source_id, told))


@delete("/v1/sources/{source_id:str}", status_code=204, opt={"unaudited": TOLD, "permission": "objects:write", "within": OWN})
async def forget_source(request: AnyRequest, principal: Principal, source_id: str) -> None:
    """Forget what a source told: its owner may, and whoever has objects:takeover. What it applied stays, and is still its own."""
    await services(request).sources.forget(principal, source_id)


HANDLERS = (list_sources, put_source, forget_source)
