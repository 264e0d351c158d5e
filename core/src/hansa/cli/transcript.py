"""A model's text as it arrives: what may be shown now, so that in the end each answer stood there once and whole.

Deltas are lost when a stream drops, and begin anew when a model call is repeated; the recorded answer is what counts. Pure: must
not know streams or the terminal.
"""

import msgspec


class Shown(msgspec.Struct, frozen=True):
    """What to do next: print `text`; before it, if `restart`, say that what stood there of this answer is void."""

    text: str
    restart: bool = False


NOTHING = Shown("")


class Transcript:
    """The answer being written now, by the deltas that came for it and the text recorded at its end."""

    def __init__(self) -> None:
        self.whole = ""
        """The last recorded answer, if it was shown; else empty."""
        self._step = ""
        self._text = ""
        self._broken = False
        self._done: set[str] = set()

    def delta(self, step: str, text: str, offset: int | None = None) -> Shown:
        """More text of `step`; `offset` is where it begins within the answer, None where the server does not say."""
        if step in self._done:
            # It was under way while the recorded answer overtook it.
            return NOTHING
        # When the step before never got its recorded answer, what was shown of it does not count.
        restart = step != self._step and bool(self._text)
        if step != self._step:
            self._begin(step)
        new = text if offset is None else text[max(0, len(self._text) - offset) :]
        if offset is not None and offset > len(self._text):
            self._broken = True
        if self._broken:
            new = ""
        self._text += new
        return Shown(new, restart) if new or restart else NOTHING

    def reset(self, step: str) -> Shown:
        """The deltas of `step` are void: the model is asked again."""
        if step in self._done:
            return NOTHING
        void = bool(self._text) and step == self._step
        self._begin(step)
        return Shown("", restart=True) if void else NOTHING

    def dropped(self) -> None:
        """The stream dropped: deltas may be missing, so the rest of this answer waits for its recorded text."""
        self._broken = True

    def recorded(self, step: str, text: str) -> Shown:
        """The answer of `step` is complete and reads `text`: what of it is still to be shown, if any was shown as it came."""
        before = self._text
        self._done.add(step)
        self._begin("")
        self.whole = text if before else ""
        if not before:
            return NOTHING
        if text.startswith(before):
            return Shown(text[len(before) :])
        return Shown(text, restart=True)

    def _begin(self, step: str) -> None:
        self._step, self._text, self._broken = step, "", False
