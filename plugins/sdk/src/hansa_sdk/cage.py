"""The cage, as tools see it: programs that nobody vouches for are run there and nowhere else.

A tool that runs a model's code, or parses what strangers sent with a library it does not trust, hands the work to a program in the cage.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec


class Caged(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a program. `stopped` says what it had too much of: `time`, `memory`, `processes`, `disk` or `output`; empty: it ended.

    `status` is its exit status; `signal` is not 0 when one ended it. Texts are what it wrote, as UTF-8 as well as it can be read.
    """

    status: int
    signal: int
    stopped: str
    stdout: str
    stderr: str
    seconds: float


class Cage(Protocol):
    """Runs programs that see the run's workspace and the system's programs, reach nobody, and are killed with all they began."""

    @property
    def python(self) -> str:
        """Path of a Python interpreter in the cage, without packages."""
        ...

    async def run(self, program: Sequence[str], *, stdin: str = "") -> Caged:
        """Run a program, named by path or as one of the system's, in the workspace. Cancelling the task kills it.

        Raises `ToolFailed` when this machine can't hold what its operator demands of a cage, or the program can't be started.
        """
        ...
