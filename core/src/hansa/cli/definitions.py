"""`hansa crds`: the definitions of Hansa's kinds for a Kubernetes cluster, as this version has them. Asks no server.

Helm installs the definitions of a chart once and never changes them again: an upgrade begins with this command.
"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from hansa.cli.objects import resolve
from hansa.cli.output import say, write
from hansa.cli.usage import UsageError
from hansa_crds import KINDS
from hansa_crds.generate import definitions


def crds(
    *kinds: Annotated[str, Parameter(help="Only these kinds, e.g. agent, agents or hag; left out: all.")],
    folder: Annotated[Path | None, Parameter(name=("--folder", "-d"), help="Write a file a kind into this folder instead.")] = None,
) -> None:
    """Print the CustomResourceDefinitions of this version, for `kubectl apply --server-side -f -`, or write them as files."""
    wanted = [resolve(kind) for kind in kinds] or list(KINDS)
    if not set(wanted) <= KINDS.keys():
        known = ", ".join(each.plural for each in KINDS.values())
        raise UsageError("runs and sessions are no objects in Kubernetes", hint=f"Kinds: {known}")
    chosen = {KINDS[kind].plural for kind in wanted}
    found = {name: text for name, text in definitions().items() if name.removesuffix(".yaml").rpartition("_")[2] in chosen}
    if folder is None:
        write("---\n".join(found.values()))
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in found.items():
        (folder / name).write_text(text, encoding="utf-8")
    say(f"wrote {len(found)} definitions to {folder}; next: kubectl apply --server-side -f {folder}")
