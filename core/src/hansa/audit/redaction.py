"""What is left out of the audit trail: secrets, by the name of their field and by their form, and texts too long to be of use.

Warning: a row can't be taken back. What is in doubt is left out.
"""

import hashlib
import re
from typing import Any, cast

import msgspec

MAX_BYTES = 16_384
"""Of `before` and of `after`. What is larger is named by its digest: objects have revisions, runs have logs."""
MAX_DEPTH = 64
REDACTED = "[redacted]"
SECRET_FIELD = re.compile(
    r"(?i)(secret|passw|passphrase|token|api_?-?key|authorization|cookie|private_?-?key|credential|pepper|digest_key|bearer|otp|session_?-?key)"
)
"""Names of fields whose texts are secrets, wherever they stand."""
REFERENCES = frozenset({"env", "name"})
"""Within such a field: what names a secret and is none."""
SECRET_TEXT = re.compile(
    r"hsa_[a-z]{2,8}_[0-9A-Za-z_]{12,}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*|(?i:bearer)\s+[\w.~+/-]{12,}=*|sk-[\w-]{16,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)|(?<=://)[^/@\s:]*:[^/@\s]+(?=@)",
    re.DOTALL,
)
"""Texts that are secrets by their form, in whatever field: keys of ours and of model providers, tokens, passwords in addresses."""


def safe(value: Any) -> Any:
    """A JSON value without secrets and within bounds."""
    cleaned = _cleaned(value, secret=False, depth=0)
    text = msgspec.json.encode(cleaned)
    if len(text) <= MAX_BYTES:
        return cleaned
    return {"left_out": f"{len(text)} bytes", "sha256": hashlib.sha256(text).hexdigest()}


def text(value: str, most: int = 500) -> str:
    """A text without secrets, and without what PostgreSQL or UTF-8 can't hold."""
    readable = value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    cleaned = SECRET_TEXT.sub(REDACTED, readable)
    return cleaned if len(cleaned) <= most else f"{cleaned[:most]}[...]"


def difference(before: Any, after: Any) -> tuple[Any, Any]:
    """Of two JSON values what differs: objects are compared field by field, everything else is one value."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return cast("tuple[Any, Any]", (before, after))
    old, new = cast("dict[str, Any]", before), cast("dict[str, Any]", after)
    was, now = dict[str, Any](), dict[str, Any]()
    for field in sorted(old.keys() | new.keys()):
        if field in old and field in new:
            if old[field] != new[field]:
                was[field], now[field] = difference(old[field], new[field])
        elif field in old:
            was[field] = old[field]
        else:
            now[field] = new[field]
    return was, now


def _cleaned(value: Any, *, secret: bool, depth: int, within: str = "") -> Any:
    if depth > MAX_DEPTH:
        return REDACTED
    match value:
        case str():
            return REDACTED if secret and value else text(value, MAX_BYTES)
        case dict():
            fields = cast("dict[str, Any]", value)
            return {
                text(name, 200): _cleaned(each, secret=_is_secret(name, within, inherited=secret), depth=depth + 1, within=name)
                for name, each in fields.items()
            }
        case list() | tuple():
            return [_cleaned(each, secret=secret, depth=depth + 1) for each in cast("list[Any]", value)]
        case _:
            return value


def _is_secret(name: str, within: str, *, inherited: bool) -> bool:
    """Whether texts under a field are secrets; `inherited`: those of the field around it are."""
    if name in REFERENCES or (within == "credentials" and name == "secret"):  # of a ModelProvider or ToolServer: it names one
        return False
    return inherited or SECRET_FIELD.search(name) is not None
