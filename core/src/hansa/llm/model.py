"""What the gateway and whoever asks it have in common."""

from typing import Protocol


class LiveText(Protocol):
    """Where text goes as it arrives. `reset` says that the step's text so far is void: another attempt begins."""

    def text(self, piece: str) -> None: ...

    def reset(self) -> None: ...
