"""Building answers out of JSON texts that come from the database as they are."""

from collections.abc import Iterable
from typing import Any

import msgspec
from litestar import Response

from hansa.api.requests import next_cursor
from hansa.api.services import AnyRequest
from hansa.auth.idempotency import Answer
from hansa.auth.model import Principal

JSON = "application/json"


def text(body: str, *, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    """JSON text as it is."""
    return Response(body.encode(), status_code=status, media_type=JSON, headers=headers or {})


def value(body: Any, *, status: int = 200) -> Response[bytes]:
    """A value, encoded."""
    return Response(msgspec.json.encode(body), status_code=status, media_type=JSON)


def page(request: AnyRequest, principal: Principal, data: Iterable[str], last: Any) -> Response[bytes]:
    """One page of a list; `last` is where it ends when there are more, else None."""
    follows = msgspec.json.encode(next_cursor(request, principal, last) if last is not None else None).decode()
    return text(f'{{"data":[{",".join(data)}],"has_more":{"false" if last is None else "true"},"next":{follows}}}')


def kept(answer: Answer, headers: dict[str, str] | None = None) -> Response[bytes]:
    """An answer that may be a replayed one, which says so."""
    marker = {"idempotency-replayed": "true"} if answer.replayed else {}
    return text(answer.body, status=answer.status, headers={**(headers or {}), **marker})
