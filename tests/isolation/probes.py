"""What probes found: how many there were, and each that told of another tenant. A probe is one answer that was looked at."""

import re

import httpx2
import msgspec

from routes import Place, lasting_headers, without_names

ASKED = re.compile(r'"target":"(GET|POST|PUT|DELETE) [^"]*"')


class Probes(msgspec.Struct):
    """Counted by the kind of thing that was asked. `words`: what is the other tenant's alone."""

    words: tuple[str, ...]
    counts: dict[str, int] = msgspec.field(default_factory=dict[str, int])
    leaks: list[str] = msgspec.field(default_factory=list[str])

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def take(self, other: "Probes") -> None:
        """Count what others have found too."""
        self.leaks += other.leaks
        for kind, count in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count

    def look(self, kind: str, what: str, text: str) -> None:
        """A text in which nothing of the other tenant may stand."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.leaks += [f"{kind}: {what}: {word[:40]!r} stands in {text[:300]!r}" for word in self.words if word in text]

    def expect(self, kind: str, what: str, *, holds: bool, told: str = "") -> None:
        """Something that has to be so."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if not holds:
            self.leaks.append(f"{kind}: {what}: {told[:300]}")

    def answer(self, kind: str, what: str, found: httpx2.Response) -> None:
        """An answer, with its headers, that names nothing of the other tenant but what was asked for, if it was not there."""
        # What a tenant asked itself, and was refused, stands in its own audit trail.
        text = f"{dict(found.headers)} {ASKED.sub('', found.text)}"
        if found.status_code >= 400:
            asked = found.request.url.path + found.request.content.decode(errors="replace")
            for word in (each for each in self.words if each in asked):
                text = text.replace(word, "")
        self.look(kind, what, text)

    def alike(self, kind: str, what: str, foreign: tuple[httpx2.Response, Place], missing: tuple[httpx2.Response, Place]) -> None:
        """What is another's is answered as what is not there, to the byte."""
        one, other = (
            (found.status_code, lasting_headers(found), without_names(found, place), found.text.count("\n"))
            for found, place in (foreign, missing)
        )
        self.expect(kind, what, holds=one == other, told=f"{one} for what is another's, {other} for what is not there")
