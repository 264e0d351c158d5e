"""Runs, events and approvals as they are shown: with the values that the log refers to, as far as they are not too large for a list.

A larger one is shown as its reference with an address to get it from; one that is damaged, with what is wrong.
"""

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec

from hansa.errors import Damaged
from hansa.runs.log.keeping import Values
from hansa.runs.values import MARK, Reference, is_object, reference

SHOWN_BYTES = 65_536


class Kind(Enum):
    """What is shown; the fields that may stand for a value."""

    RUN = ("input", "output")
    EVENT = ()
    """All fields of its data."""
    APPROVAL = ("answer",)


async def shown(values: Values, tenant_id: UUID, kind: Kind, texts: Sequence[str]) -> list[str]:
    """JSON texts as the database has them, with values in the place of references."""
    mark = f'"{MARK}"'
    decoded = [msgspec.json.decode(text) if mark in text else None for text in texts]
    places = [place for each in decoded if each is not None for place in _places(kind, each)]
    found = await values.load(tenant_id, {there.digest for _, _, there in places if there.size <= SHOWN_BYTES})
    for owner, name, there in places:
        body = found.get(there.digest)
        if body is None:
            owner[name] = {**owner[name], "href": f"/v1/values/{there.value}"}
        elif isinstance(body, Damaged):
            owner[name] = {**owner[name], "damaged": body.detail}
        else:
            owner[name] = msgspec.Raw(body)
    return [text if each is None else msgspec.json.encode(each).decode() for text, each in zip(texts, decoded, strict=True)]


def _places(kind: Kind, each: dict[str, Any]) -> Iterable[tuple[dict[str, Any], str, Reference]]:
    owner = each.get("data") if kind is Kind.EVENT else each
    if not is_object(owner):
        return
    for name in list(owner) if kind is Kind.EVENT else kind.value:
        there = reference(owner.get(name))
        if there is not None:
            yield owner, name, there
