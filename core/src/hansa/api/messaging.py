"""/v1/nats-account and /v1/nats-credentials: how a tenant's own programs join over NATS."""

import re
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from litestar import Response, delete, get, post

from hansa.api import answers, bodies, requests
from hansa.api.services import AnyRequest, services
from hansa.audit.model import Action
from hansa.auth.idempotency import once
from hansa.auth.model import Principal
from hansa.bus.accounts import Login
from hansa.db.pool import Connection
from hansa.errors import Invalid
from hansa.tenants.messaging.service import LONGEST_SECONDS

USER = re.compile(r"U[A-Z2-7]{55}")


class NatsAccount(msgspec.Struct, frozen=True):
    """The tenant's account on NATS. `account`: its public key, null while it has none; `reason`: why it is ready or not."""

    account: str | None
    ready: bool
    reason: str
    message: str
    url: str
    connections: int
    subscriptions: int
    payload_bytes: int


class MakeCredentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Credentials to be made: what for, and for how many seconds, an hour at most."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
    ttl_seconds: Annotated[int, msgspec.Meta(ge=1, le=LONGEST_SECONDS)] = LONGEST_SECONDS


class NatsCredentials(msgspec.Struct, frozen=True):
    """Credentials that were just made: log in at `url` with `creds`, the text of a credentials file. It is shown this once; a repeated
    answer under an Idempotency-Key has none. `user`: their public key, by which they can be revoked.
    """

    name: str
    account: str
    user: str
    url: str
    expires_at: str
    creds: str | None = None


@get("/v1/nats-account", opt={"permission": "messages:read", "answer": NatsAccount})
async def get_nats_account(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """The tenant's account on NATS, and whether the server knows it."""
    known, found = await services(request).messaging.state(principal.tenant_id)
    return answers.value(
        NatsAccount(
            account=known.account if known else None,
            ready=found.status == "True",
            reason=found.reason,
            message=found.message,
            url=_url(request),
            connections=known.connections if known else 0,
            subscriptions=known.subscriptions if known else 0,
            payload_bytes=known.payload_bytes if known else 0,
        )
    )


@post(
    "/v1/nats-credentials",
    status_code=201,
    opt={"audit": Action.CREDENTIALS_MADE, "permission": "messages:join", "body": MakeCredentials, "answer": NatsCredentials},
)
async def make_nats_credentials(request: AnyRequest, principal: Principal) -> Response[bytes]:
    """Make credentials for a program of the tenant, which may do no more than the caller. They are shown this once and kept nowhere."""
    key = await requests.idempotency_key(request)
    asked = await bodies.body(request, MakeCredentials)
    made: list[Login] = []

    async def operation(connection: Connection) -> tuple[int, str]:
        login = await services(request).messaging.login(connection, principal, asked.name, seconds=asked.ttl_seconds)
        made.append(login)
        until = datetime.fromtimestamp(login.until, UTC).isoformat()
        return 201, msgspec.json.encode(NatsCredentials(asked.name, login.account, login.user, _url(request), until)).decode()

    answer = await once(services(request).equipment.database, principal, key, operation)
    if answer.replayed or not made:
        return answers.kept(answer)
    shown = msgspec.structs.replace(msgspec.json.decode(answer.body, type=NatsCredentials), creds=made[0].text)
    return answers.value(shown, status=answer.status)


@delete(
    "/v1/nats-credentials",
    status_code=204,
    opt={"audit": Action.CREDENTIALS_REVOKED, "permission": "messages:join", "query": {"user": str}},
)
async def revoke_nats_credentials(request: AnyRequest, principal: Principal) -> None:
    """Revoke all credentials of the tenant at once, or those of one ?user=: programs are cut off, and come back with new ones only."""
    user = requests.query(request).get("user")
    if user is not None and not USER.fullmatch(user):
        raise Invalid("user is not the public key of a NATS user", hint="It begins with U, and is told when credentials are made.")
    await services(request).messaging.revoke(principal, user)


def _url(request: AnyRequest) -> str:
    nats = services(request).settings.nats
    return nats.public_url or nats.url


HANDLERS = (get_nats_account, make_nats_credentials, revoke_nats_credentials)
