"""Reading requests: query values, cursors, idempotency keys. Each refusal names the place and what was expected."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, get_origin
from uuid import UUID

import msgspec

from hansa.api.services import AnyRequest, services
from hansa.auth.idempotency import IdempotencyKey, digest
from hansa.auth.model import Principal
from hansa.errors import Invalid, Malformed

MAX_PAGE = 200
DEFAULT_PAGE = 50
MAC_BYTES = 12


def uuid(text: str, what: str) -> UUID:
    """An id from the path or query; one that has not the form of an id is refused as such."""
    try:
        return UUID(text)
    except ValueError:
        raise Invalid(f"{what} {text[:80]!r} is not an id (a UUID)") from None


def number(request: AnyRequest, name: str, default: int, *, least: int = 0, most: int) -> int:
    """A whole number from `least` to `most` out of the query."""
    text = request.query_params.get(name)
    return default if text is None else whole(text, name, least=least, most=most)


def whole(text: str, what: str, *, least: int = 0, most: int) -> int:
    """A whole number from `least` to `most`, written in digits."""
    if not text.isascii() or not text.isdigit() or len(text) > 18 or not least <= int(text) <= most:
        raise Invalid(f"{what}={text[:40]!r} is not a whole number from {least} to {most}")
    return int(text)


def moment(request: AnyRequest, name: str) -> datetime | None:
    """A time with its zone out of the query, in UTC."""
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        found = msgspec.convert(text, Annotated[datetime, msgspec.Meta(tz=True)])
        return found.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise Invalid(f"{name}={text[:40]!r} is not a time with its zone", hint="Write it like 2030-01-31T12:00:00Z.") from None


def limit(request: AnyRequest) -> int:
    """The page size asked for."""
    return number(request, "limit", DEFAULT_PAGE, least=1, most=MAX_PAGE)


def parameters(opt: Mapping[str, Any]) -> dict[str, type]:
    """The query parameters of a route, by what it says of itself: its own and, when it answers with a list, those of paging."""
    own = opt.get("query", {})
    return {**own, "limit": int, "after": own.get("after", str)} if get_origin(opt.get("answer")) is list else dict(own)


def query(request: AnyRequest) -> dict[str, str]:
    """The query's values; that all of them are known was seen to before."""
    return {name: str(value) for name, value in request.query_params.items()}


def cursor(request: AnyRequest, principal: Principal) -> Any:
    """What `next` of the page before said, or None. Raises `Malformed` for a cursor that is not from this very query."""
    text = request.query_params.get("after")
    if text is None:
        return None
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raw = b""
    if not hmac.compare_digest(raw[:MAC_BYTES], _mac(request, principal, raw[MAC_BYTES:])):
        raise Malformed("the cursor is not valid for this query", hint="Use `next` of the page before, with the same filters.")
    return msgspec.json.decode(raw[MAC_BYTES:])


def next_cursor(request: AnyRequest, principal: Principal, value: Any) -> str:
    """An opaque cursor for the page after `value`, good for this query of this tenant only."""
    payload = msgspec.json.encode(value)
    return base64.urlsafe_b64encode(_mac(request, principal, payload) + payload).rstrip(b"=").decode()


def _mac(request: AnyRequest, principal: Principal, payload: bytes) -> bytes:
    filters = sorted((name, value) for name, value in request.query_params.items() if name not in ("after", "limit"))
    scope = msgspec.json.encode([request.scope["path"], str(principal.tenant_id), filters])
    return hmac.digest(services(request).cursor_key, scope + b"\x00" + payload, hashlib.sha256)[:MAC_BYTES]


def header(request: AnyRequest, name: bytes) -> str | None:
    """The header of a name in lower case, as it came: of the many that a request has, two are read. Raises `Malformed` for one that is
    there twice: who stands in front of us may have looked at the other."""
    found = [value for key, value in request.scope["headers"] if key == name]
    if len(found) > 1:
        raise Malformed(f"the header {name.decode().title()} is given more than once")
    return found[0].decode("latin-1") if found else None


async def idempotency_key(request: AnyRequest) -> IdempotencyKey | None:
    """The `Idempotency-Key` of a POST; its scope is the route as it was called."""
    key = key_text(request)
    return None if key is None else IdempotencyKey(f"{request.method} {request.scope['path']}", key, digest(await request.body()))


def key_text(request: AnyRequest) -> str | None:
    """What the `Idempotency-Key` says, of a POST whose body is not read here."""
    key = header(request, b"idempotency-key")
    if key is not None and (not 1 <= len(key) <= 255 or not key.isascii() or not key.isprintable()):
        raise Invalid("the Idempotency-Key is not 1 to 255 printable ASCII characters")
    return key
