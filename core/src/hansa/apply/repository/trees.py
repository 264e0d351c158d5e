"""Files of a Git tree: which there are, and which changed between two trees. Links are named and never followed.

Blocks; reads trees only, and of two trees only what differs.
"""

import stat

from dulwich.diff_tree import tree_changes
from dulwich.object_store import BaseObjectStore
from dulwich.objects import S_ISGITLINK, Blob, ObjectID, Tree

from hansa.apply.manifests import MAX_BYTES, SUFFIXES
from hansa.apply.repository.failures import Reason, RepositoryAway, RepositoryRefused
from hansa.apply.repository.model import MAX_ENTRIES, MAX_FILES, File, Unreadable

MAX_DEPTH = 64
_HINT = "Keep manifests below a folder of their own, and name it with --path."
_LINK = "is a link, which is never followed: put the file itself here"
SHUT_LINK = "is a link, which is never followed"
_SUBMODULE = "is a submodule, which is not looked into"
UNSHOWN = "has a name that is not UTF-8, or holds characters that can't be seen"


def folder(store: BaseObjectStore, root: ObjectID, path: str) -> ObjectID:
    """The tree of a folder. Raises `RepositoryRefused`."""
    found = root
    for part in path.split("/") if path else ():
        tree = _tree(store, found)
        name = part.encode()
        if name not in tree or not stat.S_ISDIR(tree[name][0]):
            raise RepositoryRefused(Reason.PATH_MISSING, f"the commit has no folder {path}", hint="--path names a folder from the top.")
        found = tree[name][1]
    return found


def files(store: BaseObjectStore, root: ObjectID, path: str) -> dict[str, File]:
    """All manifest files below a folder, whose tree is `root`, and what is shut, by path from the top. Raises `RepositoryRefused`."""
    found: dict[str, File] = {}
    entries = 0
    waiting = [(path, root, 0)]
    while waiting:
        inside, tree, depth = waiting.pop()
        for name, mode, sha in _tree(store, tree).iteritems():
            entries += 1
            shown = f"{inside}/{legible(name)}" if inside else legible(name)
            if stat.S_ISDIR(mode) and not _is_hidden(name):
                if depth >= MAX_DEPTH:
                    raise RepositoryRefused(Reason.TOO_LARGE, f"folders stand deeper than {MAX_DEPTH} in each other", hint=_HINT)
                waiting.append((shown, sha, depth + 1))
            elif _is_told(name, mode):
                found[shown] = _file(name, mode, sha)
            if entries > MAX_ENTRIES:
                raise RepositoryRefused(Reason.TOO_LARGE, f"there are more than {MAX_ENTRIES} files and folders", hint=_HINT)
    return bounded(found)


def changed(store: BaseObjectStore, before: ObjectID, after: ObjectID, *, path: str, known: dict[str, File]) -> dict[str, File]:
    """What `files` would give for the tree `after`, from what it gave for `before`. Raises `RepositoryRefused`."""
    found = dict(known)
    for change in tree_changes(store, before, after):
        for entry, there in ((change.old, False), (change.new, True)):
            if entry is None:
                continue
            parts = entry.path.split(b"/")
            if any(_is_hidden(part) for part in parts) or not _is_told(parts[-1], entry.mode):
                continue
            shown = "/".join(([path] if path else []) + [legible(part) for part in parts])
            if there:
                found[shown] = _file(parts[-1], entry.mode, entry.sha)
            else:
                found.pop(shown, None)
    return bounded(found)


def bounded(found: dict[str, File]) -> dict[str, File]:
    """The files, in the order of their paths, when they are not too many."""
    count = sum(not file.shut for file in found.values())
    if count > MAX_FILES:
        raise RepositoryRefused(Reason.TOO_LARGE, f"there are {count} manifest files; the most is {MAX_FILES}", hint=_HINT)
    return dict(sorted(found.items()))


def content(store: BaseObjectStore, file: File) -> bytes:
    """What a file holds. Raises `Unreadable`, or `RepositoryAway` when its object is not there."""
    if file.flaw:
        raise Unreadable(file.flaw)
    try:
        found = store[ObjectID(file.id.encode())]
    except KeyError:
        raise RepositoryAway(Reason.DAMAGED, f"the object {file.id} is missing in the repository") from None
    if not isinstance(found, Blob):
        raise Unreadable("is not a file")
    if found.raw_length() > MAX_BYTES:
        raise Unreadable(f"larger than {MAX_BYTES} bytes")
    return found.as_raw_string()


def _tree(store: BaseObjectStore, sha: ObjectID) -> Tree:
    try:
        found = store[sha]
    except KeyError:
        raise RepositoryAway(Reason.DAMAGED, f"the object {sha.decode()} is missing in the repository") from None
    if not isinstance(found, Tree):
        raise RepositoryAway(Reason.DAMAGED, f"the object {sha.decode()} is no folder, and is used as one")
    return found


def _is_hidden(name: bytes) -> bool:
    return name.startswith(b".")


def _is_told(name: bytes, mode: int) -> bool:
    """Whether somebody is told of a name: it is that of a manifest, or what is behind it is not known."""
    return not _is_hidden(name) and not stat.S_ISDIR(mode) and (_is_shut(mode) or _is_named(name))


def _is_shut(mode: int) -> bool:
    return stat.S_ISLNK(mode) or S_ISGITLINK(mode)


def _is_named(name: bytes) -> bool:
    suffix = b"." + name.rpartition(b".")[2]
    return b"." in name and suffix.decode("ascii", "replace") in SUFFIXES


def _file(name: bytes, mode: int, sha: ObjectID) -> File:
    if S_ISGITLINK(mode):
        return File(sha.decode(), _SUBMODULE, shut=True)
    if stat.S_ISLNK(mode):
        return File(sha.decode(), _LINK) if _is_named(name) else File(sha.decode(), SHUT_LINK, shut=True)
    if legible(name).encode() != name:
        return File(sha.decode(), UNSHOWN)
    return File(sha.decode())


def legible(name: bytes) -> str:
    """A name as people may see it: with a mark for all that is not UTF-8, or can't be seen."""
    text = name.decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
