"""Requests made from the OpenAPI document, right and wrong ones by the hundreds: none breaks anything, each answer is as documented."""

import asyncio
import copy
from collections.abc import Iterator
from typing import Any

import httpx2
import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import booleans
from litestar.handlers import HTTPRouteHandler
from schemathesis import GenerationMode, checks
from schemathesis.core.failures import FailureGroup

from hansa.api.app import HANDLERS
from routes import Place, case_of, path_of, settle
from samples import SCRIPTED
from stack import Process, Stack

EXAMPLES = 6
"""Of each operation and each kind; more of them find more, and take longer."""
NAMES = ("not_a_server_error", "status_code", "content_type", "response_headers", "response_schema")
CHECKS: list[Any] = [getattr(checks, each if "error" in each else f"{each}_conformance") for each in NAMES]
CHECKS.append(checks.negative_data_rejection)
ENDLESS = "stream_events"
ALL = sorted(((method, handler) for handler in HANDLERS for method in handler.http_methods), key=lambda each: each[0] == "DELETE")
"""What would take something away comes last."""
OPTIONS: dict[str, Any] = {
    "database": None,
    "deadline": None,
    "derandomize": True,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


@pytest.fixture(scope="module")
def session(stack: Stack) -> Iterator[requests.Session]:
    """Connections with a valid key that may do everything."""
    with requests.Session() as found:
        found.trust_env = False
        found.headers["authorization"] = f"Bearer {stack.key}"
        yield found


@pytest.fixture(scope="module")
def place(stack: Stack, control_plane: Process, shared_worker: Process) -> Place:
    """Something that paths can lead to."""

    async def make() -> Place:
        async with stack.client(control_plane) as client:
            await client.post("/v1/objects:apply", json={"objects": [{"manifest": SCRIPTED}]})
            return await settle(client, stack)

    return asyncio.run(make())


@pytest.fixture(scope="module")
def document(control_plane: Process) -> dict[str, Any]:
    return httpx2.get(f"{control_plane.url}/v1/openapi.json", trust_env=False, verify=False).json()


@pytest.fixture(scope="module")
def schema(document: dict[str, Any]) -> Any:
    return schemathesis.openapi.from_dict(document)


@schemathesis.serializer("application/jsonl", "application/x-tar")
def lines(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """What is made for a body that is a text."""
    return str(value).encode(errors="replace")


class Asking(msgspec.Struct, frozen=True):
    """How operations are asked."""

    url: str
    session: requests.Session
    parts: dict[str, str]

    def ask(self, operation: Any, mode: GenerationMode, examples: int = EXAMPLES) -> int:
        """Ask one operation, for what is there and for what is not; how often. Raises a `FailureGroup`."""
        asked: list[int] = []

        @settings(**OPTIONS, max_examples=examples)
        @given(case=operation.as_strategy(generation_mode=mode), there=booleans())
        def each(case: Any, there: bool) -> None:  # noqa: FBT001 - hypothesis gives it by name
            if there and operation.definition.raw["operationId"] != ENDLESS:
                case.path_parameters = {name: self.parts.get(name, value) for name, value in case.path_parameters.items()}
            asked.append(1)
            case.call_and_validate(base_url=self.url, session=self.session, checks=CHECKS, timeout=20)

        each()
        return len(asked)


@pytest.fixture(scope="module")
def asking(control_plane: Process, session: requests.Session, place: Place) -> Asking:
    return Asking(control_plane.url, session, msgspec.to_builtins(place))


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize(("method", "handler"), ALL, ids=case_of)
def test_no_request_breaks_anything_and_each_answer_is_as_documented(
    asking: Asking, schema: Any, method: str, handler: HTTPRouteHandler, mode: GenerationMode
) -> None:
    try:
        assert asking.ask(schema[path_of(handler)][method], mode) > 0
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE
        assert not handler.opt.get("permission"), "every request to it may be made wrong"


def test_an_answer_that_is_not_as_documented_is_found(asking: Asking, document: dict[str, Any]) -> None:
    wrong = copy.deepcopy(document)
    wrong["components"]["schemas"]["WhoAmI"]["properties"]["tenant"] = {"type": "integer"}
    with pytest.raises(FailureGroup, match="Response violates schema"):
        asking.ask(schemathesis.openapi.from_dict(wrong)["/v1/whoami"]["GET"], GenerationMode.POSITIVE)


def test_an_answer_of_no_documented_status_is_found(asking: Asking, document: dict[str, Any]) -> None:
    wrong = copy.deepcopy(document)
    operation = wrong["paths"]["/v1/agents/{name}"]["get"]
    operation["responses"] = {"200": operation["responses"]["200"]}
    with pytest.raises(FailureGroup, match="Undocumented status code"):
        asking.ask(schemathesis.openapi.from_dict(wrong)["/v1/agents/{name}"]["GET"], GenerationMode.POSITIVE)
