"""The hooks of key providers and secret sources: what they register is found, and what is none is refused by name."""

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from hansa.plugins.loader import load
from hansa.plugins.model import PluginState
from hansa.settings import PluginSettings

SOURCE = """
from hansa_sdk import KeyProviderKind, SecretSourceKind, hookimpl

HANSA_API_VERSION = 1


def opened(services):
    raise AssertionError("a hook only registers")


@hookimpl
def {hook}():
    return [{item}]
"""
Install = Callable[[str, str], EntryPoint]


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    """Writes a plugin module with one hook that gives one item."""
    sys.path.insert(0, str(tmp_path))

    def write(hook: str, item: str) -> EntryPoint:
        module = f"plugin_{len(list(tmp_path.iterdir()))}_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(SOURCE.format(hook=hook, item=item))
        return EntryPoint("ours", module, "hansa.plugins")

    yield write
    sys.path.remove(str(tmp_path))


def test_hook_key_providers(install: Install) -> None:
    plugins = load(PluginSettings(), [install("hansa_key_providers", 'KeyProviderKind("hsm", opened)')])
    assert plugins.key_providers["hsm"][0] == "ours"
    assert plugins.infos[0].key_providers == ("hsm",)
    (info,) = load(PluginSettings(), [install("hansa_key_providers", '"hsm"')]).infos
    assert (info.state, info.reason) == (PluginState.FAILED, "its hook hansa_key_providers returned a str, which is not a KeyProviderKind")


def test_hook_secret_sources(install: Install) -> None:
    plugins = load(PluginSettings(), [install("hansa_secret_sources", 'SecretSourceKind("box", opened)')])
    assert plugins.secret_sources["box"][0] == "ours"
    assert plugins.infos[0].secret_sources == ("box",)
    (info,) = load(PluginSettings(), [install("hansa_secret_sources", 'KeyProviderKind("box", opened)')]).infos
    assert info.reason == "its hook hansa_secret_sources returned a KeyProviderKind, which is not a SecretSourceKind"


def test_the_built_in_plugins_bring_what_they_say() -> None:
    plugins = load(PluginSettings(names="keyfile,kubernetes,vault"))
    assert (sorted(plugins.key_providers), sorted(plugins.secret_sources)) == (["file", "vault"], ["folder", "kubernetes", "vault"])
