"""The hooks of key providers and secret sources: what they register is found, and what is none is refused by name."""

import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pytest

from hansa.plugins.loader import load
from hansa.plugins.model import PluginState
from hansa.settings import PluginSettings
from hansa_sdk import KeyProviderKind, SecretSourceKind, hookimpl


def point(monkeypatch: pytest.MonkeyPatch, hook: str, items: list[Any]) -> EntryPoint:
    """A plugin with one hook that gives these."""
    module = ModuleType(f"plugin_of_{hook}")
    vars(module)["HANSA_API_VERSION"] = 1

    def give() -> list[Any]:
        return items

    vars(module)[hook] = hookimpl(specname=hook)(give)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return EntryPoint("ours", module.__name__, "hansa.plugins")


def opened(services: Any) -> Any:
    raise AssertionError("a hook only registers")


def test_hook_key_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = load(PluginSettings(), [point(monkeypatch, "hansa_key_providers", [KeyProviderKind("hsm", opened)])])
    assert plugins.key_providers["hsm"][0] == "ours"
    assert plugins.infos[0].key_providers == ("hsm",)
    (info,) = load(PluginSettings(), [point(monkeypatch, "hansa_key_providers", ["hsm"])]).infos
    assert (info.state, info.reason) == (PluginState.FAILED, "its hook hansa_key_providers returned a str, which is not a KeyProviderKind")


def test_hook_secret_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = load(PluginSettings(), [point(monkeypatch, "hansa_secret_sources", [SecretSourceKind("box", opened)])])
    assert plugins.secret_sources["box"][0] == "ours"
    assert plugins.infos[0].secret_sources == ("box",)
    (info,) = load(PluginSettings(), [point(monkeypatch, "hansa_secret_sources", [KeyProviderKind("box", opened)])]).infos
    assert info.reason == "its hook hansa_secret_sources returned a KeyProviderKind, which is not a SecretSourceKind"


def test_the_built_in_plugin_brings_a_key_file_and_a_folder() -> None:
    plugins = load(PluginSettings(names="keyfile"))
    assert (list(plugins.key_providers), list(plugins.secret_sources)) == (["file"], ["folder"])
