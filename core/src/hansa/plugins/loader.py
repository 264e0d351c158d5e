"""Loads plugins by entry point (`hansa.plugins`), each on its own: one that fails is named and disabled, the rest serves.

pluggy alone would stop at the first failing entry point, register a misspelt hook silently and return the un-awaited
coroutine of an async hook; all three are refused here by name. In-process plugins are trusted code.
"""

import inspect
import traceback
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, cast

import pluggy
import structlog

from hansa.errors import Misconfigured
from hansa.plugins.model import PluginInfo, Plugins, PluginState
from hansa.settings import PluginSettings
from hansa_sdk import API_VERSION, HookSpecs, KeyProviderKind, ProviderKind, SecretSourceKind, Tool

GROUP = "hansa.plugins"
HOOKS = {
    "hansa_tools": "tools",
    "hansa_llm_providers": "providers",
    "hansa_runtimes": "runtimes",
    "hansa_key_providers": "key_providers",
    "hansa_secret_sources": "secret_sources",
}
"""Each hook, and where what it registers is found: in `Plugins` and in `PluginInfo`."""
KINDS = {
    "hansa_tools": Tool,
    "hansa_llm_providers": ProviderKind,
    "hansa_key_providers": KeyProviderKind,
    "hansa_secret_sources": SecretSourceKind,
}
log = structlog.stdlib.get_logger("hansa.plugins")


def load(settings: PluginSettings, found: Iterable[EntryPoint] | None = None) -> Plugins:
    """Load every installed plugin, or those that HANSA_PLUGINS names.

    Raises `Misconfigured` when two plugins register one name (both are named) or HANSA_PLUGINS names one that is not installed.
    """
    points = sorted(entry_points(group=GROUP) if found is None else found, key=lambda point: point.name)
    wanted = {name.strip() for name in settings.names.split(",") if name.strip()}
    missing = sorted(wanted - {point.name for point in points})
    if missing:
        installed = ", ".join(point.name for point in points) or "none"
        raise Misconfigured(
            f"HANSA_PLUGINS names {', '.join(missing)}, which is not installed (installed: {installed})", hint="Install it with pip."
        )
    collected = _Collected(trace=settings.trace)
    for point in points:
        if wanted and point.name not in wanted:
            collected.infos.append(_info(point, PluginState.DISABLED, "not in HANSA_PLUGINS"))
        else:
            collected.add(point)
    return Plugins(tuple(collected.infos), **collected.registries)


class _Collected:
    """What has been loaded so far."""

    def __init__(self, *, trace: bool) -> None:
        self.infos: list[PluginInfo] = []
        self.registries: dict[str, dict[str, tuple[str, Any]]] = {place: {} for place in HOOKS.values()}
        self._trace = trace

    def add(self, point: EntryPoint) -> None:
        try:
            module = point.load()
            items = _call_hooks(point.name, module, trace=self._trace)
        # A plugin is a stranger's code: whatever it raises, it is named, disabled and shown, and the others go on.
        except (Exception, SystemExit) as error:
            reason = _reason(error)
            log.error("plugin.failed", plugin=point.name, entry_point=point.value, reason=reason)
            self.infos.append(_info(point, PluginState.FAILED, reason))
            return
        names: dict[str, tuple[str, ...]] = {}
        for hook, place in HOOKS.items():
            names[place] = tuple(item.name for item in items[hook])
            for item in items[hook]:
                other = self.registries[place].setdefault(item.name, (point.name, item))
                if other[0] != point.name or other[1] is not item:
                    other_from = next((info.distribution for info in self.infos if info.name == other[0]), _distribution(point))
                    raise Misconfigured(
                        f"plugins {other[0]!r} (of {other_from}) and {point.name!r} (of {_distribution(point)}) "
                        f"both register {item.name!r} through {hook}",
                        hint="Uninstall one of them or leave it out of HANSA_PLUGINS.",
                    )
        self.infos.append(_info(point, PluginState.LOADED, "", **names))


class PluginRefused(Exception):
    """A plugin that loads and breaks a rule; the text says which."""


def _call_hooks(name: str, module: ModuleType, *, trace: bool) -> dict[str, list[Any]]:
    version = getattr(module, "HANSA_API_VERSION", None)
    if version != API_VERSION:
        raise PluginRefused(
            f"it is made for plugin API version {version}, this is version {API_VERSION}: install a release of it that fits"
        )
    manager = pluggy.PluginManager("hansa")
    manager.add_hookspecs(HookSpecs)
    if trace:
        manager.trace.root.setwriter(lambda text: log.info("plugin.trace", plugin=name, trace=text.rstrip()))
        manager.enable_tracing()
    manager.register(module, name)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginRefused(f"it implements a hook that does not exist: {error}; the hooks are {', '.join(HOOKS)}") from error
    items: dict[str, list[Any]] = {}
    for hook in HOOKS:
        caller = getattr(manager.hook, hook)
        for implementation in caller.get_hookimpls():
            if inspect.iscoroutinefunction(implementation.function) or inspect.isasyncgenfunction(implementation.function):
                raise PluginRefused(f"its hook {hook} is async; hooks only register, what they register has the async methods")
        items[hook] = [item for answer in caller() for item in _checked(hook, answer)]
    return items


def _checked(hook: str, answer: Any) -> Sequence[Any]:
    if not isinstance(answer, list | tuple):
        raise PluginRefused(f"its hook {hook} returned {type(answer).__name__}, a list is expected")
    items = cast(Sequence[Any], answer)
    kind = KINDS.get(hook)
    for item in items:
        if kind is not None:
            fits = isinstance(item, kind)
        else:
            fits = isinstance(getattr(item, "name", None), str) and inspect.iscoroutinefunction(getattr(item, "run", None))
        if not fits:
            expected = kind.__name__ if kind is not None else "Runtime"
            raise PluginRefused(f"its hook {hook} returned a {type(item).__name__}, which is not a {expected}")
    return items


def _reason(error: BaseException) -> str:
    """The error and the plugin's own innermost frame, in one line."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and "/hansa/plugins/" not in frame.filename
    ]
    where = f" (at {frames[-1].filename.rsplit('/', 2)[-2]}/{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}" if not isinstance(error, PluginRefused) else str(error)


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown distribution"


def _info(point: EntryPoint, state: PluginState, reason: str = "", **provides: tuple[str, ...]) -> PluginInfo:
    version = point.dist.version if point.dist else ""
    return PluginInfo(point.name, _distribution(point), version, point.value, state, reason, **provides)
