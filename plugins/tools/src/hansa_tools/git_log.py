"""The tool `git_log`: the last commits of a repository that the operator listed, by its name.

Must not take a path from a model. Warning: a repository's own configuration can name programs to run (signature checks,
monitors, pagers, transports), so each run of git switches all of them off.
"""

import asyncio
import contextlib
import os
import re
import signal
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from hansa_sdk import ToolContext, ToolFailed, tool

SETTING = "git_repositories"
"""Repositories that `git_log` may show: comma-separated `name=/path`. Empty: none, since a path is the operator's to give."""
MAX_OUTPUT = 256 * 1024
MAX_SUBJECT = 300
SECONDS = 15.0

_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}(~[0-9]{1,5})?")
_HINT = "The operator lists repositories as HANSA_TOOL_GIT_REPOSITORIES=name=/path,name2=/path2."

Repository = Annotated[str, Meta(min_length=1, max_length=100, description="The name of a repository that the operator listed.")]
Count = Annotated[int, Meta(ge=1, le=100, description="How many commits, newest first.")]
Ref = Annotated[str, Meta(min_length=1, max_length=210, description="A branch, tag or commit; `main~5` goes five commits back.")]


@tool(effect="read", timeout=SECONDS + 5.0, untrusted=True)
async def git_log(context: ToolContext, *, repository: Repository, count: Count = 10, ref: Ref = "HEAD") -> dict[str, object]:
    """List the last commits of a repository: hash, author, date and subject."""
    listed = _listed(context.settings.get(SETTING, ""))
    if repository not in listed:
        names = ", ".join(sorted(listed)) or "none"
        raise ToolFailed(f"there is no repository {repository!r}; there are: {names}", hint="" if listed else _HINT)
    if not _REF.fullmatch(ref) or ".." in ref:
        raise ToolFailed(f"{ref!r} is not the name of a branch, tag or commit", hint="Write `main`, `v1.0` or `main~5`.")
    status, output, complaint = await _run(_arguments(listed[repository], count, ref), _environment(listed[repository]))
    if status != 0:
        raise ToolFailed(_explained(complaint, repository, ref))
    return {"repository": repository, "ref": ref, "commits": _commits(output)}


def _listed(setting: str) -> dict[str, Path]:
    repositories: dict[str, Path] = {}
    for entry in filter(None, (part.strip() for part in setting.split(","))):
        name, equals, path = entry.partition("=")
        if not equals or not name.strip() or not Path(path.strip()).is_absolute():
            raise ToolFailed("the list of repositories can't be read", hint=_HINT)
        repositories[name.strip()] = Path(os.path.realpath(path.strip()))
    return repositories


def _arguments(path: Path, count: int, ref: str) -> list[str]:
    settings = {
        "safe.directory": str(path),
        "core.fsmonitor": "false",
        "core.hooksPath": os.devnull,
        "core.pager": "cat",
        "gpg.program": "false",
        "log.showSignature": "false",
        "protocol.allow": "never",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    shape = ["-z", "--format=%H%x00%an%x00%aI%x00%s", "--encoding=UTF-8", f"--max-count={count}"]
    plain = [
        "--no-patch",
        "--no-ext-diff",
        "--no-textconv",
        "--no-color",
        "--no-decorate",
        "--no-show-signature",
        "--no-notes",
        "--no-mailmap",
    ]
    return ["git", "--no-pager", "-C", str(path), *options, "log", *plain, *shape, "--end-of-options", ref, "--"]


def _environment(path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.devnull,
        "LC_ALL": "C.UTF-8",
        "GIT_ATTR_NOSYSTEM": "1",
        # Without it, a folder that is no repository would be answered for by one above it, which nobody listed.
        "GIT_CEILING_DIRECTORIES": str(path.parent),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_PAGER": "cat",
        "GIT_TERMINAL_PROMPT": "0",
    }


async def _run(arguments: list[str], environment: dict[str, str]) -> tuple[int, bytes, bytes]:
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
        )
    except FileNotFoundError as error:
        raise ToolFailed("git is not installed where this agent runs") from error
    streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
    try:
        async with asyncio.timeout(SECONDS):
            output, complaint = await asyncio.gather(*(_bounded(stream) for stream in streams))
            return await process.wait(), output, complaint
    except TimeoutError as error:
        raise ToolFailed(f"git did not answer within {SECONDS:g} s") from error
    finally:
        # Git and whatever it started are one group; also when this call is cancelled.
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _bounded(stream: asyncio.StreamReader) -> bytes:
    data = bytearray()
    while part := await stream.read(65536):
        data += part
        if len(data) > MAX_OUTPUT:
            raise ToolFailed(f"git answered more than {MAX_OUTPUT} bytes", hint="Ask for fewer commits.")
    return bytes(data)


def _commits(output: bytes) -> list[dict[str, str]]:
    fields = output.decode(errors="replace").removesuffix("\0").split("\0")
    if len(fields) < 4:
        return []
    rows = zip(*(iter(fields),) * 4, strict=False)
    return [
        {"commit": commit, "author": author[:200], "date": date, "subject": subject[:MAX_SUBJECT]} for commit, author, date, subject in rows
    ]


def _explained(complaint: bytes, repository: str, ref: str) -> str:
    """What git's words mean; the words themselves hold paths of the host."""
    said = complaint.decode(errors="replace")
    if "not a git repository" in said or "cannot change to" in said:
        return f"what the operator listed as {repository!r} is not a git repository"
    if any(words in said for words in ("unknown revision", "bad revision", "ambiguous argument", "bad object", "any commits yet")):
        if ref == "HEAD":
            return f"{repository!r} has no commits yet"
        return f"{repository!r} has no branch, tag or commit {ref!r}"
    return f"git could not read {repository!r}"
