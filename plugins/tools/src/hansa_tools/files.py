"""The tools `files_list`, `files_read` and `files_write`: text files in the folder of one run.

Whether a path stays inside is decided by `workspace`, alone.
"""

import asyncio
import hashlib
import os
import stat
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from hansa_sdk import ToolContext, ToolFailed, tool
from hansa_tools.workspace import OWN_PREFIX, components, open_file, open_folder, replace_file

MAX_READ = 64 * 1024
MAX_WRITE = 256 * 1024
MAX_ENTRIES = 500

FilePath = Annotated[str, Meta(min_length=1, max_length=1024, description="Relative to the workspace, such as `notes/today.txt`.")]
FolderPath = Annotated[str, Meta(max_length=1024, description="A folder relative to the workspace; empty for the workspace itself.")]
Offset = Annotated[int, Meta(ge=0, le=2**62, description="The byte to begin at, to read on in a large file.")]
Text = Annotated[str, Meta(max_length=MAX_WRITE, description="The whole new content.")]


@tool(effect="read", timeout=10.0)
async def files_list(context: ToolContext, *, path: FolderPath = "") -> dict[str, object]:
    """List the files and folders in a folder of the workspace, by name."""
    return await asyncio.to_thread(_listed, context.workspace, path)


@tool(effect="read", timeout=10.0)
async def files_read(context: ToolContext, *, path: FilePath, offset: Offset = 0) -> dict[str, object]:
    """Read a text file of the workspace, 64 KiB at a time. When `next_offset` is given, the file goes on there."""
    return await asyncio.to_thread(_read, context.workspace, path, offset)


@tool(effect="idempotent", timeout=10.0)
async def files_write(context: ToolContext, *, path: FilePath, text: Text) -> dict[str, object]:
    """Write a text file into the workspace, in place of what was there. Missing folders are made. At most 256 KiB."""
    names = components(path)
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise ToolFailed("the text holds characters that can't be written as UTF-8") from error
    if len(data) > MAX_WRITE:
        raise ToolFailed(f"the text has {len(data)} bytes; the most is {MAX_WRITE}", hint="Write several files.")
    # The same name for every attempt of this call: one that was killed leaves nothing behind for good.
    temporary = OWN_PREFIX + hashlib.sha256(f"{context.idempotency_key}\n{path}".encode()).hexdigest()[:24]
    await asyncio.to_thread(replace_file, context.workspace, names, data=data, temporary=temporary)
    return {"path": "/".join(names), "size": len(data)}


def _listed(workspace: Path, path: str) -> dict[str, object]:
    names = components(path, empty=True)
    entries: list[dict[str, object]] = []
    with open_folder(workspace, names) as folder:
        found = sorted(name for name in os.listdir(folder) if not name.startswith(OWN_PREFIX))
        for name in found[:MAX_ENTRIES]:
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                continue
            # A name that is no UTF-8 is shown as well as it can be.
            shown = os.fsencode(name).decode(errors="replace")
            entries.append({"name": shown, "kind": _kind(status.st_mode), "size": status.st_size if stat.S_ISREG(status.st_mode) else 0})
    return {"path": "/".join(names), "entries": entries, "truncated": len(found) > MAX_ENTRIES}


def _read(workspace: Path, path: str, offset: int) -> dict[str, object]:
    names = components(path)
    with open_file(workspace, names) as file:
        size = os.fstat(file).st_size
        data = os.pread(file, MAX_READ, offset)
    more = offset + len(data) < size
    begun = _skipped(data) if offset else 0
    taken = len(data) - (_left_over(data) if more else 0)
    try:
        text = data[begun:taken].decode()
    except UnicodeDecodeError as error:
        raise ToolFailed(f"{'/'.join(names)!r} is not a text in UTF-8") from error
    if "\0" in text:
        raise ToolFailed(f"{'/'.join(names)!r} is not a text: it holds zero bytes")
    answer: dict[str, object] = {"path": "/".join(names), "size": size, "text": text}
    if more:
        answer["next_offset"] = offset + taken
    return answer


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISREG(mode):
        return "file"
    return "link" if stat.S_ISLNK(mode) else "other"


def _skipped(data: bytes) -> int:
    """How many bytes at the start belong to a character that began before it: at most three."""
    return next((count for count, byte in enumerate(data[:3]) if byte & 0xC0 != 0x80), min(3, len(data)))


def _left_over(data: bytes) -> int:
    """How many bytes at the end begin a character that the cut went through."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        return back if length > back else 0
    return 0
