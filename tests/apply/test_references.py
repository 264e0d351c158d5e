"""What an object may refer to."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Self

import jsonschema_rs
import pytest

from hansa.apply.references import unresolved
from hansa.plugins.model import Plugins
from hansa_crds import (
    API_VERSION,
    Agent,
    AgentModel,
    AgentSpec,
    Credentials,
    ModelProvider,
    ModelProviderSpec,
    ObjectMeta,
    ProviderModel,
    ToolServer,
    ToolServerSpec,
)

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


class Listener:
    """A server on loopback that counts who comes."""

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/schema.json"
        self.visits = 0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                visitor, _ = self._socket.accept()
                self.visits += 1
                visitor.close()

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


def thinker(reference: str) -> Agent:
    schema = {"type": "object", "properties": {"a": {"$ref": reference}}}
    spec = AgentSpec(instructions="x", model=AgentModel(alias="small"), output_schema=schema)
    return Agent(api_version=API_VERSION, metadata=NAME, spec=spec)


def schema_errors(reference: str) -> list[str]:
    return [error.message for error in unresolved(thinker(reference), NOTHING, [], []) if error.path == "spec.outputSchema"]


def test_nothing_is_fetched_or_read_for_an_output_schema(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text("{}")
    with Listener() as listener:
        assert len(schema_errors(listener.url)) == 1
        assert len(schema_errors(f"file://{tmp_path}/schema.json")) == 1
        assert listener.visits == 0
        # The listener sees a validator that does fetch.
        with pytest.raises(ValueError, match="Resource"):
            jsonschema_rs.Draft202012Validator({"$ref": listener.url})
        assert listener.visits > 0
    assert schema_errors("#/properties") == []
