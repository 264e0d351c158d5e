"""Validation of objects and of any other data against their types: every problem at once, in words for people.

Knows nothing of files and HTTP: it takes what a YAML or JSON loader gives. It never raises on data, whatever the data.
"""

import re
from functools import lru_cache
from typing import Any, cast

import msgspec
from msgspec import Struct, inspect

from hansa_crds.kinds import KINDS
from hansa_crds.model import HansaObject
from hansa_crds.parts import API_VERSION
from hansa_crds.problem import MAX_PROBLEMS, Keys, Problem, listed, named, nearest, path_of, problem, shown, wrong_type
from hansa_crds.soundness import Soundness
from hansa_crds.walk import Walk

_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)|\[(\d+)\]")


def check(data: object) -> tuple[HansaObject | None, tuple[Problem, ...]]:
    """Read an object, or say everything that is wrong with it: exactly one of the two answers is empty."""
    sound = Soundness()
    sound.look(data)
    if sound.fatal:
        return None, _told(sound.found)
    if not isinstance(data, dict):
        return None, (wrong_type((), "an object", data),)
    fields = cast("dict[Any, Any]", data)
    name = fields.get("kind")
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        return None, _told([*sound.found, *_version(fields), *_kind(fields)])
    walk = [each for each in _walked(fields, kind.type, sound) if each.keys != ("apiVersion",) or each.code == "required"]
    found = [*sound.found, *_version(fields), *walk]
    if found:
        return None, _told(found)
    try:
        return msgspec.convert(data, kind.type, strict=True), ()
    except msgspec.ValidationError as error:
        return None, (_unforeseen(error),)


def problems(data: object, type_: type[Struct]) -> tuple[Problem, ...]:
    """Say everything that is wrong with data as an instance of a Struct type; nothing: `msgspec.convert` will read it."""
    sound = Soundness()
    sound.look(data)
    if sound.fatal:
        return _told(sound.found)
    found = [*sound.found, *_walked(data, type_, sound)]
    if found:
        return _told(found)
    try:
        msgspec.convert(data, type_, strict=True)
    except (msgspec.ValidationError, TypeError) as error:
        return (_unforeseen(error),)
    return ()


def _version(data: dict[Any, Any]) -> list[Problem]:
    """Judge `apiVersion`, if it is there."""
    version = data.get("apiVersion", API_VERSION)
    right = f"write `apiVersion: {API_VERSION}`"
    if not isinstance(version, str):
        return [problem(("apiVersion",), "version", f"expected the name of a version, got {named(version)}", right)]
    if version != API_VERSION:
        return [problem(("apiVersion",), "version", f"unknown version `{shown(version)}`; this platform reads {API_VERSION}", right)]
    return []


def _kind(data: dict[Any, Any]) -> list[Problem]:
    """Judge a `kind` that is not known; nothing else of the object can be judged then."""
    kind = data.get("kind")
    known = listed(KINDS)
    if kind is None:
        return [problem(("kind",), "required", "`kind` is missing", f"write one of {known}")]
    if not isinstance(kind, str):
        return [problem(("kind",), "kind", f"expected the name of a kind, got {named(kind)}", f"write one of {known}")]
    message = f"unknown kind `{shown(kind)}`; known kinds: {known}"
    near = nearest(kind, KINDS)
    return [problem(("kind",), "kind", message, f"did you mean `{near}`?" if near else "")]


def _walked(data: object, type_: type[Struct], sound: Soundness) -> list[Problem]:
    walk = Walk(frozenset(sound.told))
    walk.value(data, _info(type_))
    return walk.found


@lru_cache(maxsize=256)
def _info(type_: type[Struct]) -> inspect.Type:
    return inspect.type_info(type_)


def _told(found: list[Problem]) -> tuple[Problem, ...]:
    """Cut the list of problems to what is worth telling, and say so."""
    if len(found) <= MAX_PROBLEMS:
        return tuple(found)
    more = problem((), "length", f"has more than {MAX_PROBLEMS} problems; these are the first", "mend these first")
    return (*found[:MAX_PROBLEMS], more)


def _unforeseen(error: Exception) -> Problem:
    """Give the words of msgspec where only it can judge (a type's own `__post_init__`, items that no set can hold)."""
    text, _, place = str(error).partition(" - at `$")
    keys: Keys = tuple(name or int(position) for name, position in _STEP.findall(place))
    return Problem(path=path_of(keys), code="type", message=text, keys=keys)
