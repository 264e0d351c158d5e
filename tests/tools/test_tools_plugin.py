"""The plugin registers its tools through the entry point, and each is described well enough for a model."""

from importlib.metadata import entry_points

import pluggy
import pytest

from hansa_sdk import API_VERSION, Effect, HookSpecs, Tool

EFFECTS = {
    "calculator": Effect.READ,
    "clock": Effect.READ,
    "files_list": Effect.READ,
    "files_read": Effect.READ,
    "files_write": Effect.IDEMPOTENT,
    "git_log": Effect.READ,
    "http_get": Effect.READ,
}


@pytest.fixture
def registered() -> dict[str, Tool]:
    (point,) = entry_points(group="hansa.plugins", name="tools")
    plugin = point.load()
    assert plugin.HANSA_API_VERSION == API_VERSION
    manager = pluggy.PluginManager("hansa")
    manager.add_hookspecs(HookSpecs)
    manager.register(plugin)
    manager.check_pending()
    (tools,) = manager.hook.hansa_tools()
    return {tool.name: tool for tool in tools}


def test_the_tools_have_their_declared_effects(registered: dict[str, Tool]) -> None:
    assert {name: tool.effect for name, tool in registered.items()} == EFFECTS


def test_every_argument_is_described_and_bounded(registered: dict[str, Tool]) -> None:
    for tool in registered.values():
        assert len(tool.description) > 30
        assert tool.parameters["type"] == "object"
        assert tool.parameters["additionalProperties"] is False
        for name, schema in tool.parameters["properties"].items():
            assert schema["description"], f"{tool.name}.{name}"
            assert {"maxLength", "maximum"} & set(schema), f"{tool.name}.{name}"
