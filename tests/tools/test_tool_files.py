"""The files of a run: what is written is read again, and nothing outside of the workspace is ever read, listed or written."""

import asyncio
import contextlib
import os
import shutil
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hansa_sdk import Effect, ToolFailed
from hansa_tools.files import MAX_READ, MAX_WRITE, files_list, files_read, files_write
from tools.conftest import Context

CANARY = "a secret outside of the workspace"


@pytest.fixture
def outside(context: Context) -> Path:
    """A folder beside the workspace, with a canary."""
    folder = context.workspace.parent / "outside"
    folder.mkdir()
    (folder / "canary.txt").write_text(CANARY)
    return folder


def _state(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}


async def test_what_was_written_is_listed_and_read(context: Context) -> None:
    assert await context.run(files_write, path="notes/./today.txt", text="grüße\n") == {"path": "notes/today.txt", "size": 8}
    assert await context.run(files_read, path="notes/today.txt") == {"path": "notes/today.txt", "size": 8, "text": "grüße\n"}
    assert (await context.run(files_list))["entries"] == [{"name": "notes", "kind": "folder", "size": 0}]
    assert (await context.run(files_list, path="notes"))["entries"] == [{"name": "today.txt", "kind": "file", "size": 8}]
    assert (context.workspace / "notes" / "today.txt").read_text() == "grüße\n"


async def test_a_second_write_replaces_the_file_and_leaves_nothing_else(context: Context) -> None:
    await context.run(files_write, path="a.txt", text="first, and longer")
    await context.run(files_write, path="a.txt", text="second")
    assert _state(context.workspace) == {"a.txt": b"second"}


async def test_what_a_killed_attempt_left_is_hidden_and_cleared_by_the_next(context: Context) -> None:
    await context.run(files_write, path="a.txt", text="x")
    (context.workspace / "a.txt").unlink()
    (context.workspace / "half").write_text("half")
    observed: set[str] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            observed.update(name for name in os.listdir(context.workspace) if name.startswith(".hansa-"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(200):
        await context.run(files_write, path="a.txt", text="x" * 1000)
        if observed:
            break
    stop.set()
    await asyncio.to_thread(watcher.join)
    (name,) = observed
    (context.workspace / name).write_text("left by a killed attempt")
    assert [entry["name"] for entry in (await context.run(files_list))["entries"]] == ["a.txt", "half"]
    await context.run(files_write, path="a.txt", text="y")
    assert _state(context.workspace) == {"a.txt": b"y", "half": b"half"}


async def test_a_reader_never_sees_half_a_file(context: Context) -> None:
    texts = ["a" * 50_000, "b" * 50_000]
    await context.run(files_write, path="f", text=texts[0])

    async def write() -> None:
        for turn in range(40):
            await context.run(files_write, path="f", text=texts[turn % 2])

    writing = asyncio.create_task(write())
    seen: set[str] = set()
    while not writing.done():
        seen.add((await context.run(files_read, path="f"))["text"])
    await writing
    assert seen <= set(texts)


@pytest.mark.parametrize(
    "path",
    [
        "../outside/canary.txt",
        "a/../../outside/canary.txt",
        "..",
        "/etc/passwd",
        "//etc/passwd",
        "a\0b",
        "\ud800",
        ".hansa-x",
        "/".join("x" * 17),
        ".",
        "./",
    ],
)
async def test_a_path_that_is_no_path_in_the_workspace_is_refused(context: Context, outside: Path, path: str) -> None:
    before = _state(outside)
    with pytest.raises(ToolFailed):
        await context.run(files_read, path=path)
    with pytest.raises(ToolFailed):
        await context.run(files_write, path=path, text="x")
    assert (_state(outside), _state(context.workspace)) == (before, {})


@pytest.mark.parametrize("target", ["../outside", "../outside/canary.txt", "../outside/new.txt", "/etc", "nowhere", "."])
async def test_links_are_not_followed(context: Context, outside: Path, target: str) -> None:
    before = _state(outside)
    (context.workspace / "link").symlink_to(target)
    for path in ("link", "link/canary.txt", "link/passwd"):
        with pytest.raises(ToolFailed):
            await context.run(files_read, path=path)
        with pytest.raises(ToolFailed):
            await context.run(files_list, path=path)
        with pytest.raises(ToolFailed):
            await context.run(files_write, path=path, text="x")
    assert _state(outside) == before
    assert (await context.run(files_list))["entries"] == [{"name": "link", "kind": "link", "size": 0}]


async def test_a_second_name_of_an_outside_file_is_refused(context: Context, outside: Path) -> None:
    (context.workspace / "hard").hardlink_to(outside / "canary.txt")
    with pytest.raises(ToolFailed, match="second name"):
        await context.run(files_read, path="hard")
    with pytest.raises(ToolFailed, match="second name"):
        await context.run(files_write, path="hard", text="x")
    assert (outside / "canary.txt").read_text() == CANARY


async def test_a_pipe_blocks_nobody(context: Context) -> None:
    os.mkfifo(context.workspace / "pipe")
    async with asyncio.timeout(5):
        with pytest.raises(ToolFailed, match="not a regular file"):
            await context.run(files_read, path="pipe")
        with pytest.raises(ToolFailed, match="not a regular file"):
            await context.run(files_write, path="pipe", text="x")
    assert (await context.run(files_list))["entries"] == [{"name": "pipe", "kind": "other", "size": 0}]


async def test_a_folder_that_turns_into_a_link_meanwhile_leads_nowhere(context: Context, outside: Path) -> None:
    folder, aside, stop = context.workspace / "d", context.workspace / "aside", threading.Event()
    folder.mkdir()
    (folder / "canary.txt").write_text("inside")
    before, swaps = _state(outside), 0

    def put_back() -> None:
        # A write that found no folder may have made one in the meantime.
        while aside.exists():
            try:
                aside.rename(folder)
            except OSError:
                folder.unlink() if folder.is_symlink() else shutil.rmtree(folder, ignore_errors=True)

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set():
            folder.rename(aside)
            with contextlib.suppress(FileExistsError):
                folder.symlink_to("../outside")
                swaps += 1
            put_back()

    swapping = threading.Thread(target=swap)
    swapping.start()
    outcomes: list[str] = []
    try:
        while swaps < 500 or len(outcomes) < 300:
            try:
                outcomes.append((await context.run(files_read, path="d/canary.txt"))["text"])
                await context.run(files_write, path="d/new", text="x")
            except ToolFailed:
                outcomes.append("refused")
    finally:
        stop.set()
        await asyncio.to_thread(swapping.join)
    assert {"inside", "refused"} == set(outcomes)
    assert _state(outside) == before


async def test_sizes_are_bounded(context: Context) -> None:
    with pytest.raises(ToolFailed, match="the most is"):
        await context.run(files_write, path="big", text="ü" * (MAX_WRITE // 2 + 1))
    with pytest.raises(msgspec.ValidationError):
        await context.run(files_write, path="big", text="x" * (MAX_WRITE + 1))
    with (context.workspace / "sparse").open("wb") as sparse:
        sparse.truncate(10**12)
    with pytest.raises(ToolFailed, match="zero bytes"):
        await context.run(files_read, path="sparse")


async def test_a_large_file_is_read_in_whole_characters(context: Context) -> None:
    text = "".join(f"{number} aüğ€😀 " for number in range(8000))
    await context.run(files_write, path="large", text=text)
    assert len(text.encode()) > 2 * MAX_READ
    parts: list[str] = []
    offset: int | None = 0
    while offset is not None:
        answer = await context.run(files_read, path="large", offset=offset)
        parts.append(answer["text"])
        offset = answer.get("next_offset")
    assert "".join(parts) == text


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"caf\xe9", b"a\0b"])
async def test_what_is_not_text_is_refused(context: Context, data: bytes) -> None:
    (context.workspace / "binary").write_bytes(data)
    with pytest.raises(ToolFailed, match="is not a text"):
        await context.run(files_read, path="binary")


async def test_strange_names_are_listed(context: Context) -> None:
    (context.workspace / os.fsdecode(b"caf\xe9")).write_text("x")
    entries = (await context.run(files_list))["entries"]
    assert entries == [{"name": "caf\ufffd", "kind": "file", "size": 1}]
    assert msgspec.json.decode(msgspec.json.encode(entries)) == entries


async def test_refusals_show_no_path_of_the_host(context: Context) -> None:
    with pytest.raises(ToolFailed) as refused:
        await context.run(files_read, path="missing/file.txt")
    assert str(context.workspace) not in refused.value.detail + refused.value.hint
    assert "'missing'" in refused.value.detail


def test_the_declared_effects() -> None:
    assert (files_list.effect, files_read.effect, files_write.effect) == (Effect.READ, Effect.READ, Effect.IDEMPOTENT)


_PARTS = st.sampled_from(
    ["..", ".", "", "a", "b", "out", "canary.txt", "outside", "~", "\\..", "%2e%2e", "..\\", "\0", "\u2024\u2024", "\uff0e\uff0e", " "]
)
_PATHS = st.one_of(st.text(min_size=1, max_size=40), st.lists(_PARTS, min_size=1, max_size=6).map("/".join).filter(bool))


@given(path=_PATHS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_no_path_touches_anything_outside(context: Context, outside: Path, path: str) -> None:
    link = context.workspace / "out"
    if not link.is_symlink() and not link.exists():
        link.symlink_to("../outside")
    beside = sorted(entry.name for entry in context.workspace.parent.iterdir())
    before = _state(outside)
    try:
        await context.run(files_write, path=path, text="written by a tool")
    except ToolFailed:
        pass
    else:
        assert (await context.run(files_read, path=path))["text"] == "written by a tool"
    for tool in (files_read, files_list):
        try:
            answer = await context.run(tool, path=path)
        except ToolFailed:
            continue
        assert CANARY not in str(answer)
        assert (context.workspace / path).resolve().is_relative_to(context.workspace.resolve())
    assert _state(outside) == before
    assert sorted(entry.name for entry in context.workspace.parent.iterdir()) == beside
