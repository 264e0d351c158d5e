"""What the gateway and whoever asks it have in common."""

from typing import Protocol


class Hearing(Protocol):
    """Where text goes as it arrives."""

    def text(self, piece: str) -> None: ...


class LiveText(Hearing, Protocol):
    """That, over several attempts. `reset` says that the step's text so far is void: another attempt begins."""

    def reset(self) -> None: ...
