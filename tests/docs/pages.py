"""What a documentation page tells its reader to do: files to write and commands to type, in the order of the page.

A block after a sentence that ends in "Write `NAME`:" is a file; every `sh` block is typed.
"""

import re
from pathlib import Path

import msgspec

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"[Ww]rite `([\w./-]+)`:\s*$")


CLUSTERED = frozenset({"custom-resources"})
"""Pages that are typed against a Kubernetes cluster, by `tests/kubernetes/test_page.py`."""
OPERATED = frozenset({"kubernetes"})
"""Pages that are typed against a cluster with the operator and the platform, by `tests/reconciling/test_page.py`."""
DEPLOYED = frozenset({"deploy", "gitops-with-argo-cd", "gitops-with-flux"})
"""Pages that are typed in a cluster that has nothing yet, by `tests/deploy/test_installed.py`."""


class Step(msgspec.Struct, frozen=True):
    """A file to write (`file` is its name), or commands to type."""

    text: str
    file: str | None = None


def steps(page: Path) -> list[Step]:
    """The steps of a page."""
    text, found, last = page.read_text(), list[Step](), 0
    for block in BLOCK.finditer(text):
        named = FILE.search(text[last : block.start()].rstrip())
        if block[1] == "sh":
            found.append(Step(block[2]))
        elif named is not None:
            found.append(Step(block[2], named[1]))
        last = block.end()
    return found
