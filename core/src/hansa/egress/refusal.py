"""What the door says when it stays shut.

    HansaError
    ├── Invalid
    │   └── EgressRefused     422  egress_refused      names what was judged and the rule; nothing was sent to it
    └── TooLarge
        └── EgressTooLarge    413  egress_too_large    an answer went over the cap and was cut off

Both are `httpx2.RequestError`s as well, and not `TransportError`s: a plugin, which can't import this package, sees a request
that failed and that no retry helps. Texts never hold userinfo, path or query of a URL: secrets live there.
"""

from enum import StrEnum

import httpx2

from hansa.errors import Invalid, TooLarge


class Rule(StrEnum):
    """Why a URL or an address was refused. The values are stable."""

    CONTROL = "control_character"
    BLANK = "blank"
    BACKSLASH = "backslash"
    AMBIGUOUS = "ambiguous_authority"
    UNICODE = "unicode_lookalike"
    MALFORMED = "malformed"
    SCHEME = "scheme"
    PLAIN_HTTP = "plain_http"
    USERINFO = "userinfo"
    NO_HOST = "no_host"
    ZONE = "zone_id"
    HOST = "host_characters"
    NUMERIC = "numeric_host"
    LITERAL = "literal_address"
    SINGLE_LABEL = "single_label"
    RESERVED_NAME = "reserved_name"
    PORT = "port"
    ADDRESS = "address_not_global"
    REDIRECT_BODY = "redirect_body"
    NOT_LISTED = "not_listed"


class EgressRefused(Invalid, httpx2.RequestError):
    """The egress policy forbids this request. `judged` is the URL's origin or the address, `rule` what it breaks."""

    code = "egress_refused"

    def __init__(self, judged: str, rule: Rule, reason: str, *, hint: str = "") -> None:
        super().__init__(f"{judged} is refused ({rule}): {reason}", hint=hint)
        self.judged = judged
        self.rule = rule


class EgressTooLarge(TooLarge, httpx2.RequestError):
    """An answer grew over `limit` bytes (on the wire, or unpacked) and its connection was closed."""

    code = "egress_too_large"

    def __init__(self, host: str, limit: int) -> None:
        super().__init__(f"the answer of {host} is larger than {limit} bytes and was cut off")
        self.limit = limit
