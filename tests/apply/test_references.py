"""What an object may refer to."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import jsonschema_rs
import pytest

from hansa.apply.references import unresolved
from hansa.errors import Misconfigured
from hansa.plugins.model import PluginInfo, Plugins, PluginState
from hansa.secrets.variables import Variables, admitted
from hansa.settings import CredentialSettings
from hansa_crds import (
    API_VERSION,
    Agent,
    AgentModel,
    AgentSpec,
    AgentTools,
    Credentials,
    ModelProvider,
    ModelProviderSpec,
    ObjectMeta,
    ProviderModel,
    SecretRef,
    ToolServer,
    ToolServerSpec,
)
from hansa_sdk import Effect, Tool, ToolContext

NOTHING = Plugins((), MappingProxyType({}), MappingProxyType({}), MappingProxyType({}))
NAME = ObjectMeta(name="x")
BY_DEFAULT = admitted({}, CredentialSettings().allow)
ANYTHING = admitted({}, "*")


def provider(env: str) -> ModelProvider:
    spec = ModelProviderSpec(plugin="openai", models=(ProviderModel(name="m"),), credentials=Credentials(env=env))
    return ModelProvider(api_version=API_VERSION, metadata=NAME, spec=spec)


def server(env: str) -> ToolServer:
    spec = ToolServerSpec(endpoint="https://example.com/mcp", credentials=Credentials(env=env))
    return ToolServer(api_version=API_VERSION, metadata=NAME, spec=spec)


def refusals(found: ModelProvider | ToolServer, variables: Variables) -> list[str]:
    errors = unresolved(found, NOTHING, [], [], variables=variables)
    return [error.message for error in errors if error.path == "spec.credentials.env"]


@pytest.mark.parametrize("make", [provider, server])
def test_no_object_can_have_the_platforms_own_secrets_sent_anywhere(make: Callable[[str], ModelProvider | ToolServer]) -> None:
    assert refusals(make("HANSA_DATABASE_APP_URL"), ANYTHING) != []
    assert refusals(make("HANSA_API_KEY"), BY_DEFAULT) != []
    assert refusals(make("OPENAI_API_KEY"), ANYTHING) == []


@pytest.mark.parametrize("make", [provider, server])
@pytest.mark.parametrize(
    ("env", "allow", "fine"),
    [
        ("AWS_SECRET_ACCESS_KEY", CredentialSettings().allow, False),
        ("GITHUB_TOKEN", CredentialSettings().allow, False),
        ("ANTHROPIC_API_KEY", CredentialSettings().allow, True),
        ("TICKETS_MCP_TOKEN", CredentialSettings().allow, True),
        ("ANTHROPIC_API_KEY", "OPENAI_API_KEY, TICKETS_*", False),
        ("TICKETS_KEY", "OPENAI_API_KEY, TICKETS_*", True),
        ("OPENAI_API_KEY_OLD", "OPENAI_API_KEY", False),
        ("OPENAI_API_KEY", "", False),
    ],
)
def test_an_object_names_only_the_variables_that_the_operator_admits(
    make: Callable[[str], ModelProvider | ToolServer], env: str, allow: str, *, fine: bool
) -> None:
    found = refusals(make(env), admitted({}, allow))
    assert (found == []) is fine
    assert fine or (env in found[0] and "HANSA_CREDENTIALS_ALLOW" in found[0])


def test_a_variable_that_is_not_admitted_holds_nothing() -> None:
    variables = admitted({"GITHUB_TOKEN": "made-up", "OPENAI_API_KEY": "made-up-too"}, "OPENAI_API_KEY")
    assert (variables.value("GITHUB_TOKEN"), variables.value("OPENAI_API_KEY")) == ("", "made-up-too")


@pytest.mark.parametrize("allow", ["OPENAI API KEY", "A,(", "[A-Z]+"])
def test_what_is_no_pattern_stops_the_start(allow: str) -> None:
    with pytest.raises(Misconfigured, match="HANSA_CREDENTIALS_ALLOW"):
        admitted({}, allow)


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
    return [
        error.message
        for error in unresolved(thinker(reference), NOTHING, [], [], variables=BY_DEFAULT)
        if error.path == "spec.outputSchema"
    ]


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


def test_a_secret_that_no_tool_asks_for_is_refused_with_those_they_ask_for() -> None:
    async def run(context: ToolContext, arguments: Any) -> None: ...

    sends = Tool("send", "Send.", {"type": "object"}, Effect.UNSAFE, dict, run, secrets=("password", "user"))
    plugins = Plugins((PluginInfo("mail", "d", "1", "e", PluginState.LOADED),), {"send": ("mail", sends)}, {}, {})
    given = {"passwort": SecretRef(secret="mail"), "user": SecretRef(secret="mail", key="user")}
    spec = AgentSpec(instructions="x", model=AgentModel(alias="small"), tools=(AgentTools(plugin="mail", secrets=given),))
    errors = unresolved(Agent(api_version=API_VERSION, metadata=NAME, spec=spec), plugins, [], [], variables=ANYTHING)
    (bad,) = [error for error in errors if "secrets" in error.path]
    assert (bad.path, bad.suggestion) == ("spec.tools[0].secrets.passwort", "did you mean `password`?")
    assert "they ask for: password, user" in bad.message
