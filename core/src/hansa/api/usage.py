"""/v1/usage and /v1/budgets: what a tenant has used, and what it may."""

from datetime import date

import msgspec
from litestar import Response, get

from hansa import clock
from hansa.api import answers, requests
from hansa.api.services import AnyRequest, services
from hansa.auth.model import Principal
from hansa.errors import Invalid
from hansa.tenants.budgets import BY, Limit


class Usage(msgspec.Struct, frozen=True):
    """What calls of models took: tokens, and money by their prices. A lost call is one whose answer nobody has; what it took at most is in
    `lost_tokens` and `lost_cost` where the tenant's budget counts it, and not in the other counts. `day`, `agent`, `model`: null where not
    asked for by `by`."""

    day: date | None
    agent: str | None
    model: str | None
    calls: int
    input_tokens: int
    output_tokens: int
    cost: float
    lost_calls: int
    lost_tokens: int
    lost_cost: float


@get(
    "/v1/usage",
    opt={"permission": "usage:read", "answer": list[Usage], "query": {"since": date, "until": date, "by": str}},
)
async def list_usage(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """What the tenant used from day to day in UTC, both included: by default this month's, by day, agent and model (`by`)."""
    today = clock.now().date()
    since, until = _day(request, "since", today.replace(day=1)), _day(request, "until", today)
    by = request.query_params.get("by", ",".join(BY)).split(",")
    after = requests.cursor(request, principal) or ["", "", ""]
    found, last = await services(request).budgets.usage(principal, since, until, by=by, after=after, limit=requests.limit(request))
    return answers.page(request, principal, found, last)


@get("/v1/budgets", opt={"permission": "usage:read", "answer": list[Limit]})
async def list_budgets(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """The limits that are set for the tenant, and how much of each is used now."""
    after, limit = requests.cursor(request, principal) or 0, requests.limit(request)
    found = await services(request).budgets.limits(principal)
    page = [msgspec.json.encode(each).decode() for each in found[after : after + limit]]
    return answers.page(request, principal, page, after + limit if len(found) > after + limit else None)


def _day(request: AnyRequest, name: str, default: date) -> date:
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        found = date.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.isoformat() != text:
        raise Invalid(f"{name}={text[:40]!r} is not a day such as 2030-01-31")
    return found


HANDLERS = (list_usage, list_budgets)
