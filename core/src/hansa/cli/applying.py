"""`hansa apply`: objects from files to the control plane; what is wrong with one never stops the others."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter

from hansa.apply.manifests import Collection, Manifest, read
from hansa.apply.sync.contents import batches, item, placed
from hansa.cli.client import Api, Json, open_api
from hansa.cli.connection import Connection
from hansa.cli.output import OutputFlag, describe, say, show_value, write
from hansa.cli.sync_api import sent
from hansa.cli.usage import UsageError
from hansa.errors import FieldError, TooLarge


# A dataclass and not a Struct: cyclopts makes options of the fields of dataclasses only.
@Parameter(name="*", group="Ownership")
@dataclass(frozen=True)
class Owner:
    """Options that say who owns the objects from then on. People leave them all out."""

    manager: Annotated[Literal["rest", "git", "kubernetes"], Parameter(help="What manages the objects.")] = "rest"
    origin: Annotated[str, Parameter(help="Which one of it: of git the repository and folder, as URL//path.")] = ""
    commit: Annotated[str, Parameter(help="The commit that has the objects as they are.")] = ""
    force: Annotated[bool, Parameter(negative=(), help="Take over what another one owns; needs a permission.")] = False

    @property
    def body(self) -> Json:
        """What requests say of it."""
        return {"manager": self.manager, "origin": self.origin, "commit": self.commit, "force": self.force}


class Result(msgspec.Struct, frozen=True):
    """What became of one object; `errors` say why it failed, `note` what is not right with it although it did not; `tenant`: whose it
    is, if not the caller's.
    """

    kind: str
    name: str
    action: str
    generation: int | None = None
    revision: int | None = None
    note: str = ""
    tenant: str = ""
    errors: tuple[FieldError, ...] = ()


class Applied(msgspec.Struct, frozen=True):
    """What became of all objects; `errors` are flaws of files, which belong to no object."""

    results: tuple[Result, ...]
    errors: tuple[FieldError, ...]

    @property
    def failed(self) -> int:
        """How many things went wrong."""
        return sum(result.action == "failed" for result in self.results) + len(self.errors)


def apply(
    *paths: Annotated[Path, Parameter(allow_leading_hyphen=True, help="YAML or JSON files, or folders of such; - for stdin.")],
    files: Annotated[
        tuple[Path, ...],
        Parameter(name=("--filename", "-f"), negative=(), allow_leading_hyphen=True, help="The same; may be given again."),
    ] = (),
    recursive: Annotated[bool, Parameter(name=("--recursive", "-R"), negative=(), help="Also sub-folders.")] = False,
    owner: Owner | None = None,
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> int:
    """Create or change the objects that files describe; status 1 when one of them could not be applied."""
    if not paths and not files:
        raise UsageError("it is not said what to apply", hint="Name files or folders, here or with --filename; - is stdin.")
    with open_api(connection or Connection()) as api:
        applied = apply_paths(api, [*paths, *files], recursive=recursive, quiet=output != "table", owner=owner)
    if output != "table":
        show_value(msgspec.to_builtins(applied), output)
    elif not applied.results and not applied.errors:
        say("nothing to apply")
    return 1 if applied.failed else 0


def apply_paths(api: Api, paths: Iterable[Path], *, recursive: bool = False, quiet: bool = False, owner: Owner | None = None) -> Applied:
    """Apply what is in files and folders; say on stderr what failed and, unless `quiet`, on stdout what did not."""
    collection = read(paths, recursive=recursive)
    for error in collection.errors:
        say(describe(error), style="red")
    applied = Applied(tuple(_apply(api, collection, owner or Owner(), quiet=quiet)), collection.errors)
    if applied.failed:
        say(f"{sum(result.action != 'failed' for result in applied.results)} applied, {applied.failed} failed", style="red")
    return applied


def _apply(api: Api, collection: Collection, owner: Owner, *, quiet: bool) -> Iterator[Result]:
    good: list[Manifest] = []
    for manifest in collection.manifests:
        problems = manifest.check()
        if problems:
            yield _told(Result(manifest.kind, manifest.name, "failed", errors=problems), quiet=quiet)
        else:
            good.append(manifest)
    for batch in batches(map(item, good)):
        try:
            answer = api.post("/v1/objects:apply", {**owner.body, "objects": [sent(each) for each in batch]})
        except TooLarge as error:
            for each in batch:
                flaw = placed(FieldError("", TooLarge.code, error.detail), each)
                yield _told(Result(each.name.kind, each.name.name, "failed", errors=(flaw,)), quiet=quiet)
            continue
        for each, told in zip(batch, answer["results"], strict=True):
            result = msgspec.convert(told, Result)
            errors = tuple(placed(error, each) for error in result.errors)
            yield _told(msgspec.structs.replace(result, errors=errors), quiet=quiet)


def _told(result: Result, *, quiet: bool) -> Result:
    """Say what became of an object, as soon as it is known."""
    name = f"{result.kind.lower() or 'object'}/{result.name or '(no name)'}"
    if result.action != "failed":
        if not quiet:
            write(f"{name} {result.action}{f' in tenant {result.tenant}' if result.tenant else ''}\n")
        if result.note:
            say(f"  {result.note}", style="yellow")
        return result
    say(f"{name} failed", style="red")
    for error in result.errors:
        say(f"  {describe(error)}")
    return result
