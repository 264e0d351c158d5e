"""What is said of accounts and users, signed: NATS's JWTs of version 2. Pure: no server, no clock.

Two accounts are the platform's: `system`, which manages the others, and `platform`, in which Hansa's processes speak. What a tenant's
account can reach of the latter is what its imports name, and the server honours an import only as bound to the importing account: what is
sent in by the account's key as a part of the subject, what is heard by an activation that names key and subject.
"""

import base64
import hashlib
from typing import Any
from uuid import UUID

import msgspec

from hansa.bus import subjects
from hansa.bus.keys import Key, Operator

FORMAT = 1
"""Counts what is said of a tenant's account: one that was made by another version is made again."""
NO_BOUND = -1
MARK = "hansa:tenant"
"""The tag of tenants' accounts, so that no other is ever pruned."""
UNBOUND = {
    "subs": NO_BOUND,
    "data": NO_BOUND,
    "payload": NO_BOUND,
    "imports": NO_BOUND,
    "exports": NO_BOUND,
    "wildcards": True,
    "conn": NO_BOUND,
    "leaf": NO_BOUND,
}
JETSTREAM = {
    "mem_storage": NO_BOUND,
    "disk_storage": NO_BOUND,
    "streams": NO_BOUND,
    "consumer": NO_BOUND,
    "max_ack_pending": NO_BOUND,
    "mem_max_stream_bytes": NO_BOUND,
    "disk_max_stream_bytes": NO_BOUND,
}


class Limits(msgspec.Struct, frozen=True):
    """What the server lets a tenant's account have: connections, subscriptions a connection, bytes a message."""

    connections: int
    subscriptions: int
    payload_bytes: int


class Account(msgspec.Struct, frozen=True):
    """A tenant's account as it shall be. `version` grows with every change; `revoked_before`: users made until then are turned away
    (seconds since 1970; 0: none are); `revoked`: those of these public keys, as far as they were made until then; `blocked`: nobody is
    let in.
    """

    tenant_id: UUID
    version: int
    limits: Limits
    revoked_before: int = 0
    blocked: bool = False
    revoked: tuple[tuple[str, int], ...] = ()


class Rights(msgspec.Struct, frozen=True):
    """What a user may do within its account; None: all that the account can."""

    publish: tuple[str, ...] | None = None
    subscribe: tuple[str, ...] | None = None


def operator(by: Operator, at: int) -> str:
    """The operator, by itself: which account is the system's."""
    return _signed(by.key, by.key.public, {"type": "operator", "system_account": by.system.public}, at=at)


def system(by: Operator, at: int) -> str:
    """The account whose users manage accounts."""
    return _signed(by.key, by.system.public, {"type": "account", "limits": UNBOUND}, at=at, name="hansa system")


def platform(by: Operator, at: int, *, exports: tuple[dict[str, Any], ...] = ()) -> str:
    """The account of Hansa's processes. `exports` replaces what it offers to tenants' accounts."""
    return _signed(
        by.key,
        by.platform.public,
        {"type": "account", "limits": {**UNBOUND, **JETSTREAM}, "exports": list(exports or EXPORTS)},
        at=at,
        name="hansa platform",
    )


SENDING: dict[str, Any] = {
    "name": "send",
    "subject": subjects.participants_all(),
    "type": "service",
    "response_type": "Singleton",
    "account_token_position": subjects.PARTICIPANT_TOKEN,
}
"""What participants send, answered by workers: bound to the account's key, which stands in the subject."""
NEWS: dict[str, Any] = {"name": "news", "subject": subjects.sessions_all(), "type": "stream", "token_req": True}
"""What sessions say: bound to the account by an activation."""
EXPORTS = (SENDING, NEWS)


def tenant(by: Operator, account: Account, region: str) -> str:
    """A tenant's account; the same for the same arguments, to the byte."""
    key = by.account(account.tenant_id)
    heard = subjects.session_live(region, account.tenant_id, "*")
    activation = _signed(
        by.platform, key.public, {"type": "activation", "subject": heard, "kind": "stream"}, at=account.version, name=NEWS["name"]
    )
    imports = [
        {
            "name": SENDING["name"],
            "account": by.platform.public,
            "subject": subjects.participant(region, key.public),
            "type": "service",
            "local_subject": subjects.OWN_SENDING,
        },
        {
            "name": NEWS["name"],
            "account": by.platform.public,
            "subject": heard,
            "type": "stream",
            "local_subject": subjects.own_news("*"),
            "token": activation,
        },
    ]
    return account_of(by, account, imports)


def account_of(by: Operator, account: Account, imports: list[dict[str, Any]]) -> str:
    """A tenant's account that can reach what `imports` name. It exports nothing, and has no streams and no servers of its own."""
    limits = {
        "subs": account.limits.subscriptions,
        "data": NO_BOUND,
        "payload": account.limits.payload_bytes,
        "imports": len(imports),
        "exports": 0,
        "wildcards": False,
        "conn": 0 if account.blocked else account.limits.connections,
        "leaf": 0,
        "disallow_bearer": True,
    }
    revoked = dict(sorted(account.revoked)) | ({"*": account.revoked_before} if account.revoked_before else {})
    said = {"type": "account", "limits": limits, "imports": imports, "tags": [MARK], **({"revocations": revoked} if revoked else {})}
    public = by.account(account.tenant_id).public
    return _signed(by.key, public, said, at=account.version, name=f"hansa tenant {account.tenant_id}")


def user(account: Key, public: str, name: str, *, at: int, until: int | None = None, rights: Rights | None = None) -> str:
    """A user of an account; `until`: when the server closes its connections."""
    rights = rights or Rights()
    claims = {
        "type": "user",
        "subs": NO_BOUND,
        "data": NO_BOUND,
        "payload": NO_BOUND,
        "pub": {} if rights.publish is None else _allowed(rights.publish),
        "sub": {} if rights.subscribe is None else _allowed(rights.subscribe),
    }
    return _signed(account, public, claims, at=at, until=until, name=name)


def deletion(by: Operator, accounts: list[str], at: int) -> str:
    """The order to forget accounts."""
    return _signed(by.key, by.key.public, {"type": "generic", "accounts": accounts}, at=at)


def credentials(token: str, seed: str) -> str:
    """A credentials file: what a NATS client logs in with."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


def read(token: str) -> dict[str, Any]:
    """What a JWT says; whether it is rightly signed is not looked at. Raises `ValueError`."""
    try:
        _, body, _ = token.split(".")
        return msgspec.json.decode(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)), type=dict[str, Any])
    except (ValueError, msgspec.DecodeError):
        raise ValueError("not a NATS JWT") from None


def _allowed(names: tuple[str, ...]) -> dict[str, list[str]]:
    # An empty list would allow everything.
    return {"allow": list(names)} if names else {"deny": [">"]}


def _signed(by: Key, subject: str, claims: dict[str, Any], *, at: int, until: int | None = None, name: str = "hansa") -> str:
    body: dict[str, Any] = {"iat": at, "iss": by.public, "name": name, "sub": subject, "nats": {**claims, "version": 2}}
    if until is not None:
        body["exp"] = until
    body["jti"] = base64.b32encode(hashlib.sha256(msgspec.json.encode(body)).digest()).decode().rstrip("=")
    text = _text(b'{"typ":"JWT","alg":"ed25519-nkey"}') + "." + _text(msgspec.json.encode(body))
    return f"{text}.{_text(by.sign(text.encode()))}"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
