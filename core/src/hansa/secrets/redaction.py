"""Keeps values of secrets out of texts: whatever was looked up in this process is struck out of what leaves it.

A value is known as it is and as JSON, Python, URLs and base64 write it; one of several lines line by line too. Values shorter than 8
characters are not struck out: texts would lose what they say. Must not know where values come from or texts go to. Warning: a value that
is split over two texts is not seen; `Stream` is for texts that come in pieces.
"""

import base64
import json
import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import quote, quote_plus
from uuid import UUID

import msgspec

SHORTEST = 8
LINE = 16
"""From so many characters on a line of a value of several is struck out by itself too: texts are indented, quoted and cut line by line."""
KEPT = 2000
Forms = tuple[tuple[str, str], ...]


class Redactor:
    """The values that this process has looked up, the last ones of all tenants. Once they are too many, the tenant with the most of them
    is forgotten one: nobody can have another's forgotten.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[UUID, OrderedDict[str, Forms]] = OrderedDict()
        """Of the tenants, those that looked something up last come last; so do their values."""
        self._count = 0
        self._of: dict[UUID | None, Forms] = {}
        """By tenant, and of all for None; made when it is asked for."""

    def learn(self, tenant_id: UUID, name: str, value: str) -> None:
        """Strike out this value from now on, as `[secret NAME]`."""
        if len(value) < SHORTEST:
            return
        mine = self._known.setdefault(tenant_id, OrderedDict())
        self._known.move_to_end(tenant_id)
        if value in mine:
            mine.move_to_end(value)
            return
        label = f"[secret {name}]"
        mine[value] = tuple((form, label) for form in forms(value))
        self._count += 1
        if self._count > KEPT:
            self._forget_one()
        self._of.pop(tenant_id, None)
        self._of.pop(None, None)

    def _forget_one(self) -> None:
        """The oldest value of the tenant with the most; of several, of the one that has looked up nothing for longest."""
        tenant_id = max(self._known, key=lambda each: len(self._known[each]))
        self._known[tenant_id].popitem(last=False)
        if not self._known[tenant_id]:
            del self._known[tenant_id]
        self._of.pop(tenant_id, None)
        self._count -= 1

    def forms(self, tenant_id: UUID | None) -> Forms:
        """What is struck out of a tenant's texts (None: of all), with what stands there instead; the longest first."""
        if not self._known:
            return ()
        if tenant_id not in self._of:
            found = [
                form for tenant, values in self._known.items() if tenant_id in (None, tenant) for each in values.values() for form in each
            ]
            self._of[tenant_id] = tuple(sorted(found, key=lambda form: -len(form[0])))
        return self._of[tenant_id]

    def text(self, tenant_id: UUID, text: str) -> str:
        """A text of a tenant without its secrets."""
        return struck_out(text, self.forms(tenant_id))

    def value(self, tenant_id: UUID, value: Any) -> Any:
        """JSON data of a tenant without its secrets, also in the names of fields."""
        found = self.forms(tenant_id)
        return _cleaned(value, found) if found else value

    def stream(self, tenant_id: UUID) -> "Stream":
        """For a text of a tenant that comes in pieces."""
        return Stream(self.forms(tenant_id))

    def line(self, text: str) -> str:
        """A line of a log, which may tell of any tenant."""
        return struck_out(text, self.forms(None))


class Stream:
    """Takes pieces, gives pieces: what might be the beginning of a secret is held back until it is known."""

    def __init__(self, known: Forms) -> None:
        self._forms = known
        self._held = ""

    def feed(self, piece: str) -> str:
        """What of the text so far may be shown now."""
        if not self._forms:
            return piece
        text = struck_out(self._held + piece, self._forms)
        begins = min((_begins(text, form) for form, _ in self._forms), default=len(text))
        self._held = text[begins:]
        return text[:begins]

    def end(self) -> str:
        """The rest, once no more comes."""
        rest, self._held = self._held, ""
        return rest


def struck_out(text: str, known: Iterable[tuple[str, str]]) -> str:
    """The text with each form replaced."""
    for form, label in known:
        if form in text:
            text = text.replace(form, label)
    return text


def forms(value: str) -> list[str]:
    """How a value may stand in a text."""
    said = [value, repr(value)[1:-1]]
    for _ in range(2):  # an error that quotes JSON stands in a log that is JSON itself
        said = list(dict.fromkeys(form for each in said for form in (each, *_in_json(each))))
    found = [*said, quote(value, safe=""), quote(value), quote_plus(value), *in_base64(value.encode())]
    lines = [line.strip() for line in value.splitlines() if "\n" in value.strip() and not line.startswith("-----")]
    return [form for form in dict.fromkeys([*found, *(line for line in lines if len(line) >= LINE)]) if len(form) >= SHORTEST]


def _in_json(value: str) -> tuple[str, ...]:
    """As JSON between the quotes: in UTF-8, with nothing but ASCII, with each `/` marked."""
    inside = msgspec.json.encode(value).decode()[1:-1]
    return inside, json.dumps(value)[1:-1], inside.replace("/", "\\/")


def in_base64(value: bytes) -> list[str]:
    """What base64 shows of a value wherever it begins in what is encoded, as in `Basic` credentials, in both alphabets."""
    found: list[str] = []
    for before in range(3):
        text = base64.b64encode(b"\0" * before + value).decode().rstrip("=")
        # The first and the last character may also hold bits of what stands around.
        end = len(text) if (before + len(value)) % 3 == 0 else len(text) - 1
        found.append(text[math.ceil(before * 8 / 6) : end])
    return [*found, *(each.replace("+", "-").replace("/", "_") for each in found)]


def _begins(text: str, form: str) -> int:
    """Where at the end of a text a form may have begun; the length of the text if nowhere."""
    at = text.find(form[0], max(0, len(text) - len(form) + 1))
    while at >= 0:
        if form.startswith(text[at:]):
            return at
        at = text.find(form[0], at + 1)
    return len(text)


def _cleaned(value: Any, known: Forms) -> Any:
    match value:
        case str():
            return struck_out(value, known)
        case list() | tuple():
            return [_cleaned(each, known) for each in cast("list[Any]", value)]
        case dict():
            fields = cast("dict[Any, Any]", value)
            return {_cleaned(name, known): _cleaned(each, known) for name, each in fields.items()}
        case _:
            return value
