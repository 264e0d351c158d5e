"""Every subject name of Hansa; nowhere else is one written. Shape: hansa.<region>.<what>[.<tenant>[.<id>]]."""

from uuid import UUID


def runs_ready(region: str) -> str:
    """Doorbell: there is work. Empty payload, no promise."""
    return f"hansa.{region}.runs.ready"


def runs_told(region: str) -> str:
    """Tells whoever drives a run that something is wanted of it; payload: `cancel`, `suspend` or `look`, a blank, the run's id."""
    return f"hansa.{region}.runs.told"


def session_live(region: str, tenant_id: UUID, session: UUID | str) -> str:
    """Live news of one session: a new last number of its log, or a piece of text that is in no log; `*` for all of the tenant."""
    return f"hansa.{region}.sessions.{tenant_id.hex}.{session}"


def sessions_all() -> str:
    """Live news of all sessions."""
    return "hansa.*.sessions.*.*"


PARTICIPANT_TOKEN = 4
"""Which part of the subject of what a participant sends is the key of its account, counted from 1."""


def participant(region: str, account: str, what: str = ">") -> str:
    """What a tenant's own programs send, as workers hear it; `account` is the account's public key, or `*` for those of all."""
    return f"hansa.{region}.participants.{account}.{what}"


def participants_all() -> str:
    """What all participants of all regions send."""
    return "hansa.*.participants.*.>"


OWN_SENDING = "hansa.send.>"
"""Within a tenant's account: what its programs send. `hansa.send.event.<name>`, or `hansa.send.session.<id>.<name>`."""


def own_event(name: str) -> str:
    """Within a tenant's account: an event for every run that waits for one of this name; `>` for all."""
    return f"hansa.send.event.{name}"


def own_session_event(session: UUID | str, name: str) -> str:
    """Within a tenant's account: an event for one session."""
    return f"hansa.send.session.{session}.{name}"


def own_news(session: UUID | str) -> str:
    """Within a tenant's account: live news of one session; `*` for all."""
    return f"hansa.news.{session}"


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


ACCOUNTS_UPDATE, ACCOUNTS_DELETE = "$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.CLAIMS.DELETE"
"""Within the server's system account: tell of an account, have some forgotten."""
ACCOUNTS_LIST, ACCOUNTS_PACK = "$SYS.REQ.CLAIMS.LIST", "$SYS.REQ.CLAIMS.PACK"
"""Ask for the names of all, or for all that is known of them unless it has this hash."""


def account_lookup(account: str) -> str:
    """Within the server's system account: ask for what it knows of one."""
    return f"$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP"


INBOXES = "_INBOX.>"
"""Where answers to requests come, as every client has it."""


SERVER = "$SYS."
"""How the subjects begin on which a server serves and tells of itself."""


def server_services(account: str, queue: str) -> dict[str, bool]:
    """What a server serves that could tell of another account or of a queue of the platform's; whether a tenant's account may be answered,
    with what is its own.
    """
    return {
        "$SYS.REQ.USER.INFO": True,
        "$SYS.REQ.SERVER.PING.CONNZ": True,
        "$SYS.REQ.ACCOUNT.PING.CONNZ": True,
        "$SYS.REQ.ACCOUNT.PING.STATZ": True,
        "$SYS.REQ.SERVER.PING": False,
        "$SYS.REQ.SERVER.PING.VARZ": False,
        ACCOUNTS_LIST: False,
        account_lookup(account): False,
        f"$SYS.REQ.ACCOUNT.{account}.CONNZ": False,
        f"$SYS.REQ.ACCOUNT.{account}.INFO": False,
        "$JS.API.INFO": False,
        "$JS.API.STREAM.NAMES": False,
        f"$JS.API.STREAM.INFO.{queue}": False,
        f"$JS.API.STREAM.MSG.GET.{queue}": False,
        f"$JS.API.CONSUMER.INFO.{queue}.{queue}": False,
    }
