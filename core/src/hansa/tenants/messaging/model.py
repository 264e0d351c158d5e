"""A tenant's NATS account as the database has it. Pure."""

from uuid import UUID

import msgspec

from hansa.bus.claims import Account, Limits

NOT_CONFIGURED = "AccountsNotConfigured"


class Known(msgspec.Struct, frozen=True):
    """How an account shall be, and what NATS was told of it last: `account` is its public key; `reason`: why it was not told."""

    tenant_id: UUID
    version: int
    connections: int
    subscriptions: int
    payload_bytes: int
    blocked: bool
    revoked_before: int
    account: str | None
    told: str | None
    digest: bytes | None
    reason: str
    revoked_users: dict[str, int] = {}

    def wanted(self) -> Account:
        """As the server is to know it."""
        limits = Limits(self.connections, self.subscriptions, self.payload_bytes)
        return Account(self.tenant_id, self.version, limits, self.revoked_before, self.blocked, tuple(self.revoked_users.items()))


class Told(msgspec.Struct, frozen=True):
    """What NATS has taken of an account: its public key, in which words it is kept (`Known.told`), and the SHA-256 of the JWT."""

    tenant_id: UUID
    account: str
    word: str
    digest: bytes


class Sender(msgspec.Struct, frozen=True):
    """Whose account it is. `rated`: its tenant's requests are counted."""

    tenant_id: UUID
    tenant: str
    rated: bool


class Condition(msgspec.Struct, frozen=True):
    """Whether a tenant's messaging is ready: `status` is True, False or Unknown."""

    status: str
    reason: str
    message: str


def condition(known: Known | None, word: str | None) -> Condition:
    """The condition MessagingReady of a tenant. `word`: what `Known.told` is when NATS knows all; None: no accounts are made here."""
    if word is None:
        text = "this installation's NATS has one account for all: no operator is configured (HANSA_NATS_OPERATOR_FILE)"
        return Condition("Unknown", NOT_CONFIGURED, text)
    if known is None or known.told != word:
        why = known.reason if known is not None else ""
        return Condition("False", "AccountNotMade", why or "NATS has not been told of the tenant's account yet")
    if known.blocked:
        return Condition("False", "AccountBlocked", "the tenant is suspended: its account lets nobody in")
    return Condition("True", "AccountReady", "NATS knows the tenant's account and bounds it")
