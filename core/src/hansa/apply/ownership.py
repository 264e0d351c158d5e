"""Who owns an object: the first who applied it, until it is taken over. Whole objects are owned, no single fields.

Pure. What is said to those who are refused names the owner, and what can be done.
"""

from shlex import quote

import msgspec

from hansa.apply.model import CLUSTER, Kept, Owner, Source
from hansa.errors import Conflict, FieldError, Invalid

PERMISSION = "objects:takeover"
"""Needed to make an object one's own that another one owns."""
SHOWN = 12
"""Characters of a commit that a message shows."""


def conflict(kind: str, known: Kept, owner: Owner, *, tenant: str, own: str) -> FieldError | None:
    """Why this owner may not change an object of a tenant, even to what it is. `own`: the tenant of the credential."""
    if known.owner == owner:
        return None
    return FieldError("metadata.name", "conflict", told(kind, known), hint(kind, known.name, owner, tenant="" if tenant == own else tenant))


def refuse(kind: str, known: Kept, owner: Owner) -> None:
    """Raise `Conflict` when somebody else owns an object."""
    if known.owner != owner:
        raise Conflict(told(kind, known), hint=f"T{hint(kind, known.name, owner)[1:]}.")


def refuse_credentials(origin: str) -> None:
    """Raise `Invalid` for an address that would show a password, or a token in its place, to everyone who reads it."""
    scheme, found, rest = origin.partition("://")
    user, at, _ = rest.partition("/")[0].rpartition("@")
    if found and at and (":" in user or scheme != "ssh"):
        text = "holds a user name or password: leave it out of the address, everybody reads it"
        raise Invalid(f"origin: {text}", errors=(FieldError("origin", "pattern", text),))


def told(kind: str, known: Kept) -> str:
    """Who owns an object, in words."""
    return f"{kind} {known.name!r} is managed by {described(known)}: change it there"


def hint(kind: str, name: str, owner: Owner, *, tenant: str = "") -> str:
    """What can be done about it, to be typed as it stands; `tenant`: whose it is, if that has to be said."""
    command = f"hansa takeover {kind.lower()}/{name}"
    if tenant and kind not in CLUSTER:
        command += f" --tenant {tenant}"
    if owner != Owner():
        command += f" --to {owner.manager}" + (f" --origin {quote(owner.origin)}" if owner.origin else "")
    return f"to make it yours: {command}"


def described(known: Kept) -> str:
    """The owner of an object, and where what it says is written."""
    match known.manager:
        case "git":
            commit = f", commit {known.commit[:SHOWN]}" if known.commit else ""
            return f"Git ({known.origin or 'no origin'}{commit}{place(known.source)})"
        case "kubernetes":
            return f"Kubernetes (cluster {known.origin or 'without a name'}, {'/'.join(filter(None, (known.namespace, known.name)))})"
        case _:
            by = f", last applied by {known.applied_by}" if known.applied_by else ""
            return f"the REST API ({known.origin or 'people'}{by})" if known.manager == "rest" else f"{known.manager!r}"


def place(source: str | None) -> str:
    """File and line of a source, with a comma before it; empty: it is not known."""
    found = msgspec.json.decode(source, type=Source) if source else Source()
    return f", {found.file}:{found.line}" if found.file else ""


def elsewhere(kind: str, known: Kept, namespace: str, *, tenant: str) -> FieldError | None:
    """Why an object of this namespace may not be written over one of the same name that stands in another namespace of the tenant."""
    stands = known.namespace or tenant
    if kind in CLUSTER or stands == namespace:
        return None
    text = (
        f"{kind} {known.name!r} of tenant {tenant!r} stands in the namespace {stands!r}, and a name is used once in a tenant: "
        "choose another name, or delete that one first"
    )
    return FieldError("metadata.namespace", "conflict", text)
