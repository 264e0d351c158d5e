"""What an object may refer to."""

from collections.abc import Callable
from types import MappingProxyType

import pytest

from hansa.apply.references import unresolved
from hansa.plugins.model import Plugins
from hansa_crds import API_VERSION, Credentials, ModelProvider, ModelProviderSpec, ObjectMeta, ProviderModel, ToolServer, ToolServerSpec

NOTHING = Plugins((), MappingProxyType({}), MappingProxyType({}), MappingProxyType({}))
NAME = ObjectMeta(name="x")


def provider(env: str) -> ModelProvider:
    spec = ModelProviderSpec(plugin="openai", models=(ProviderModel(name="m"),), credentials=Credentials(env=env))
    return ModelProvider(api_version=API_VERSION, metadata=NAME, spec=spec)


def server(env: str) -> ToolServer:
    spec = ToolServerSpec(endpoint="https://example.com/mcp", credentials=Credentials(env=env))
    return ToolServer(api_version=API_VERSION, metadata=NAME, spec=spec)


@pytest.mark.parametrize("make", [provider, server])
def test_no_object_can_have_the_platforms_own_secrets_sent_anywhere(make: Callable[[str], ModelProvider | ToolServer]) -> None:
    paths = [error.path for error in unresolved(make("HANSA_DATABASE_APP_URL"), NOTHING, [], [])]
    assert "spec.credentials.env" in paths
    assert "spec.credentials.env" not in [error.path for error in unresolved(make("OPENAI_API_KEY"), NOTHING, [], [])]
