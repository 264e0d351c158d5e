"""Every subject name of Hansa; nowhere else is one written. Shape: hansa.<region>.<what>[.<tenant>[.<id>]]."""

from uuid import UUID


def runs_ready(region: str) -> str:
    """Doorbell: there is work. Empty payload, no promise."""
    return f"hansa.{region}.runs.ready"


def runs_told(region: str) -> str:
    """Tells whoever drives a run that something is wanted of it; payload: `cancel`, `suspend` or `look`, a blank, the run's id."""
    return f"hansa.{region}.runs.told"


def session_live(region: str, tenant_id: UUID, session_id: UUID) -> str:
    """Live news of one session: a new last number of its log, or a piece of text that is in no log."""
    return f"hansa.{region}.sessions.{tenant_id.hex}.{session_id.hex}"


def keys_changed(region: str) -> str:
    """Tells every control plane to look at API keys again. Empty payload, no promise."""
    return f"hansa.{region}.keys.changed"


def messages_ready(region: str) -> str:
    """Doorbell: there is something in the outbox. Empty payload, no promise."""
    return f"hansa.{region}.messages.ready"


def messages_queue(region: str) -> str:
    """Name of the queue, and of its consumer, of messages within a region."""
    return f"hansa-{region}-messages"


def messages_sent(region: str, tenant: str = "*") -> str:
    """A message on its way within a region; `tenant` is the id in hexadecimal, or `*` for those of all."""
    return f"hansa.{region}.messages.sent.{tenant}"
