"""Plugins that are wrong are named and left out, each for its own reason, and the others go on."""

import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path

import pytest

from hansa.errors import Misconfigured
from hansa.plugins.loader import load
from hansa.plugins.model import PluginInfo, Plugins, PluginState
from hansa.settings import PluginSettings

GOOD = """
from hansa_sdk import Tool, ToolContext, hookimpl, tool

HANSA_API_VERSION = 1

@tool(effect="read")
async def {tool}(context: ToolContext) -> str:
    '''Look.'''
    return ""

@hookimpl
def hansa_tools() -> list[Tool]:
    return [{tool}]
"""
Install = Callable[..., EntryPoint]


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    """Writes a distribution with one plugin module, as pip would, and gives its entry point."""
    sys.path.insert(0, str(tmp_path))

    def write(name: str, source: str) -> EntryPoint:
        module = f"plugin_{tmp_path.name.replace('-', '_')}_{name}"
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        info = tmp_path / f"dist_{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dist-{name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[hansa.plugins]\n{name} = {module}\n")
        (point,) = Distribution.at(info).entry_points
        return point

    yield write
    sys.path.remove(str(tmp_path))


def only(plugins: Plugins, name: str) -> PluginInfo:
    (info,) = [info for info in plugins.infos if info.name == name]
    return info


WRONG = {
    "raises at import": ("raise LookupError('no licence found')", "LookupError: no licence found", ".py:1)"),
    "leaves at import": ("import sys; sys.exit('bye')", "SystemExit: bye", ".py:1)"),
    "is for another version": ("HANSA_API_VERSION = 2", "plugin API version 2, this is version 1", ""),
    "names no version": ("x = 1", "plugin API version None", ""),
    "misspells a hook": (
        "from hansa_sdk import hookimpl\nHANSA_API_VERSION = 1\n@hookimpl\ndef hansa_tolls(): return []",
        "hansa_tolls",
        "hansa_tools",
    ),
    "wants other arguments": (
        "from hansa_sdk import hookimpl\nHANSA_API_VERSION = 1\n@hookimpl\ndef hansa_tools(config): return []",
        "hansa_tools",
        "config",
    ),
    "has an async hook": (
        "from hansa_sdk import hookimpl\nHANSA_API_VERSION = 1\n@hookimpl\nasync def hansa_tools(): return []",
        "hook hansa_tools is async",
        "",
    ),
    "has a hook that raises": (
        "from hansa_sdk import hookimpl\nHANSA_API_VERSION = 1\n@hookimpl\ndef hansa_runtimes(): raise ValueError('odd')",
        "ValueError: odd",
        ".py:4)",
    ),
    "answers no list": (
        "from hansa_sdk import hookimpl\nHANSA_API_VERSION = 1\n@hookimpl\ndef hansa_tools(): return {'a': 1}",
        "returned dict, a list is expected",
        "",
    ),
    "answers other things": (
        "from hansa_sdk import hookimpl\nHANSA_API_VERSION = 1\n@hookimpl\ndef hansa_tools(): return ['tool']",
        "a str, which is not a Tool",
        "",
    ),
    "gives a runtime that can't run": (
        "from hansa_sdk import hookimpl\nHANSA_API_VERSION = 1\nclass R:\n    name = 'r'\n@hookimpl\ndef hansa_runtimes(): return [R()]",
        "which is not a Runtime",
        "",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_plugin_is_named_and_the_others_serve(install: Install, fault: str) -> None:
    source, told, also = WRONG[fault]
    plugins = load(PluginSettings(), [install("bad", source), install("good", GOOD.format(tool="look"))])
    bad = only(plugins, "bad")
    assert (bad.state, bad.distribution, bad.version) == (PluginState.FAILED, "dist-bad", "1.2")
    assert told in bad.reason
    assert also in bad.reason
    assert only(plugins, "good").tools == ("look",)
    assert plugins.loaded() == ("good",)


def test_a_plugin_that_needs_what_is_not_installed_says_what(install: Install) -> None:
    plugins = load(PluginSettings(), [install("bad", "import no_such_vendor_sdk")])
    assert "no_such_vendor_sdk" in only(plugins, "bad").reason


def test_two_plugins_with_one_tool_stop_the_start_and_are_both_named(install: Install) -> None:
    points = [install("one", GOOD.format(tool="look")), install("two", GOOD.format(tool="look"))]
    with pytest.raises(Misconfigured) as refused:
        load(PluginSettings(), points)
    assert all(each in refused.value.detail for each in ("'look'", "dist-one", "dist-two"))
    assert load(PluginSettings(names="two"), points).loaded() == ("two",)


def test_one_plugin_that_gives_a_name_twice_is_refused(install: Install) -> None:
    source = GOOD.format(tool="look").replace("return [look]", "return [look, tool(effect='read', name='look')(_other)]")
    source += "\nasync def _other(context: ToolContext) -> str:\n    '''Look.'''\n    return ''\n"
    with pytest.raises(Misconfigured, match="'look'"):
        load(PluginSettings(), [install("twice", source)])


def test_a_plugin_that_is_named_and_not_installed_stops_the_start(install: Install) -> None:
    point = install("good", GOOD.format(tool="look"))
    with pytest.raises(Misconfigured, match=r"HANSA_PLUGINS names missing.*installed: good"):
        load(PluginSettings(names="good, missing"), [point])


def test_a_plugin_that_is_not_named_is_not_even_imported(install: Install) -> None:
    points = [install("bad", "raise SystemExit"), install("good", GOOD.format(tool="look"))]
    plugins = load(PluginSettings(names="good"), points)
    assert only(plugins, "bad").state is PluginState.DISABLED
    assert plugins.loaded() == ("good",)


def test_all_that_comes_with_hansa_loads() -> None:
    plugins = load(PluginSettings())
    assert [info for info in plugins.infos if info.state is not PluginState.LOADED] == []
    assert {"loop"} <= set(plugins.runtimes)
    assert {"scripted"} <= set(plugins.providers)
    points = {point for dist in distributions() for point in dist.entry_points.select(group="hansa.plugins")}
    assert len(points) >= len(plugins.infos) > 0
