"""The judge of the egress door: may this URL be asked, may this address be connected to?

Pure: it neither resolves nor connects. It parses with the parser that the client connects with, so both see the same host.
Warning: a verdict on a URL that holds a name is only half; the addresses behind it are judged when they are known.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Sequence

import httpx2
import msgspec

from hansa.egress.addresses import Address, is_neighbour, unwrap, why_not_global
from hansa.egress.policy import AllowEntry, EgressPolicy, parse_entry
from hansa.egress.refusal import EgressRefused, Rule

DEFAULT_PORTS = {"http": 80, "https": 443}

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_AUTHORITY = re.compile(r"(?:[a-zA-Z][a-zA-Z0-9+.-]*:)?//([^/]*)")
_HOST_AND_PORT = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(:[0-9]{0,5})?")
_ENCODED_CONTROL = re.compile(r"%(0[0-9a-f]|1[0-9a-f]|7f)", re.IGNORECASE)
_RESERVED = (
    "localhost",
    "local",
    "localdomain",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "home.arpa",
    "svc",
    "metadata.goog",
    "metadata.tencentyun.com",
)
_ADMIT_HINT = "The operator can admit it by an entry in the egress allow-list."


class Target(msgspec.Struct, frozen=True):
    """A URL that passed: `host` is normalised; `address` is set when the URL has it literally, unwrapped."""

    scheme: str
    host: str
    port: int
    address: Address | None = None


def judge_text(text: str) -> None:
    """Refuse what parsers read differently, on the text as it was given. Raises `EgressRefused`."""
    for position, character in enumerate(text):
        if character == "\\":
            raise EgressRefused("the URL", Rule.BACKSLASH, f"backslash at character {position}")
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise EgressRefused("the URL", Rule.CONTROL, f"control character U+{ord(character):04X} at character {position}")
        if character.isspace():
            raise EgressRefused("the URL", Rule.BLANK, f"blank at character {position}", hint="Write %20 in a path or query.")
    encoded = _ENCODED_CONTROL.search(text)
    if encoded:
        raise EgressRefused("the URL", Rule.CONTROL, f"encoded control character {encoded.group()} at character {encoded.start()}")
    found = _AUTHORITY.match(text)
    if found is None:
        return
    authority = found.group(1)
    if "@" in authority.split("?")[0].split("#")[0]:
        raise EgressRefused("the URL", Rule.USERINFO, "it holds a user name or password", hint="Send credentials in a header.")
    if "#" in authority or "@" in authority:
        raise EgressRefused("the URL", Rule.AMBIGUOUS, "parsers disagree where its host ends", hint="Put a `/` after the host.")
    authority = authority.split("?")[0]
    if unicodedata.normalize("NFKC", authority) != authority:
        raise EgressRefused("the URL", Rule.UNICODE, "its host holds characters that stand for others")
    if not _HOST_AND_PORT.fullmatch(authority):
        raise EgressRefused("the URL", Rule.MALFORMED, "what follows `//` is not `host` or `host:port`")


def judge_url(url: str | httpx2.URL, policy: EgressPolicy) -> Target:
    """Judge all that a URL shows by itself. Raises `EgressRefused`."""
    target = target_of(url)
    entry = _entry_for(target, policy)
    if entry is None:
        _refuse_by_default(target, policy)
    if (entry is None or entry.port is None) and target.port not in policy.ports:
        listed = ", ".join(str(number) for number in policy.ports)
        raise EgressRefused(origin_of(target), Rule.PORT, f"port {target.port} is not among {listed}", hint=_ADMIT_HINT)
    return target


def target_of(url: str | httpx2.URL) -> Target:
    """What a URL aims at, when it is one that all parsers read alike. Raises `EgressRefused`."""
    judge_text(str(url))
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise EgressRefused("the URL", Rule.MALFORMED, str(error)) from error
    scheme = parsed.scheme
    host = parsed.raw_host.decode("ascii").lower()
    if scheme not in DEFAULT_PORTS:
        shown = f"scheme {scheme[:20]!r}" if scheme else "a URL without a scheme"
        raise EgressRefused(shown, Rule.SCHEME, "only https, and http where the policy allows it, go out")
    if parsed.userinfo:
        raise EgressRefused("the URL", Rule.USERINFO, "it holds a user name or password", hint="Send credentials in a header.")
    port = DEFAULT_PORTS[scheme] if parsed.port is None else parsed.port
    if not host:
        raise EgressRefused("the URL", Rule.NO_HOST, "it names no host")
    address = _literal(host)
    if address is None:
        host = _checked_name(host)
    return Target(scheme=scheme, host=host, port=port, address=address)


def judge_answers(host: str, port: int, *, answers: Sequence[str], policy: EgressPolicy) -> tuple[str, ...]:
    """Judge every address a name stands for, and give them all; one bad answer spoils the name. Raises `EgressRefused`."""
    entries = [entry for entry in map(parse_entry, policy.allow) if entry.port in (None, port)]
    name_listed = any(entry.name is not None and _matches(entry.name, host) for entry in entries)
    for answer in answers:
        address = unwrap(ipaddress.ip_address(answer))
        if any(entry.network is not None and address in entry.network for entry in entries):
            continue
        reason = why_not_global(address)
        if reason is None or (name_listed and is_neighbour(address)):
            continue
        raise EgressRefused(f"{host}:{port}, which is {answer},", Rule.ADDRESS, f"the address is {reason}", hint=_ADMIT_HINT)
    return tuple(answers)


def _literal(host: str) -> Address | None:
    if "%" in host and ":" in host:
        raise EgressRefused("the URL", Rule.ZONE, "an address with a zone id means another host on every machine")
    if ":" in host:
        return unwrap(ipaddress.IPv6Address(host))
    last = host.removesuffix(".").rsplit(".", 1)[-1]
    if not _NUMBER.fullmatch(last):
        return None
    # Resolvers read 127.1, 0177.0.0.1, 0x7f000001 and 2130706433 as addresses, so only the plain form may pass.
    try:
        return ipaddress.IPv4Address(host)
    except ValueError as error:
        reason = "it is neither a name nor a dotted IPv4 address"
        raise EgressRefused(f"host {host[:60]!r}", Rule.NUMERIC, reason, hint="Write four decimal numbers.") from error


def _checked_name(host: str) -> str:
    name = host.removesuffix(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise EgressRefused(f"host {host[:60]!r}", Rule.HOST, "it is not a host name")
    return name


def _entry_for(target: Target, policy: EgressPolicy) -> AllowEntry | None:
    """The entry that lists this target; one with the target's port comes before one without."""
    found: AllowEntry | None = None
    for entry in map(parse_entry, policy.allow):
        if is_covered(target, entry) and (found is None or found.port is None):
            found = entry
    return found


def is_covered(target: Target, entry: AllowEntry) -> bool:
    """Whether an entry names a target: a host by its name, an address by a network; names are not looked up for it."""
    if entry.port not in (None, target.port):
        return False
    if target.address is None:
        return entry.name is not None and _matches(entry.name, target.host)
    return entry.network is not None and target.address in entry.network


def _refuse_by_default(target: Target, policy: EgressPolicy) -> None:
    origin = origin_of(target)
    if target.address is not None:
        reason = why_not_global(target.address)
        if reason is not None:
            shown = "" if str(target.address) == target.host else f", which is {target.address},"
            raise EgressRefused(f"{origin}{shown}", Rule.ADDRESS, f"the address is {reason}", hint=_ADMIT_HINT)
        if not policy.allow_literals:
            raise EgressRefused(origin, Rule.LITERAL, "the policy asks for a host name", hint=_ADMIT_HINT)
    elif any(_matches(name, target.host) or _matches(f"*.{name}", target.host) for name in _RESERVED):
        raise EgressRefused(origin, Rule.RESERVED_NAME, "such names belong to local networks", hint=_ADMIT_HINT)
    elif "." not in target.host:
        raise EgressRefused(origin, Rule.SINGLE_LABEL, "a name of one label is completed by local search domains", hint=_ADMIT_HINT)
    if target.scheme == "http" and not policy.allow_http:
        raise EgressRefused(origin, Rule.PLAIN_HTTP, "the policy asks for https")


def _matches(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def origin_of(target: Target) -> str:
    """A target as refusals name it."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    return f"{target.scheme}://{host}:{target.port}"
