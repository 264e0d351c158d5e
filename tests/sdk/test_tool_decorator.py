"""`@tool`: a plain async function becomes a described tool, or a clear error."""

from typing import Annotated, Any, Literal, cast

import msgspec
import pytest

from hansa_sdk import Effect, PluginError, Tool, ToolContext, tool
from hansa_sdk.tools import ToolDefinitionError

NO_CONTEXT = cast(ToolContext, object())


class Place(msgspec.Struct):
    city: str
    country: str = "PT"


@tool(effect="keyed", timeout=7.5)
async def book(
    context: ToolContext,
    *,
    nights: Annotated[int, msgspec.Meta(ge=1, le=30, description="How many nights.")],
    room: Literal["single", "double"] = "single",
    guests: list[str] | None = None,
) -> dict[str, Any]:
    """Book a room
    in the hotel.

    This paragraph is for people.
    """
    return {"nights": nights, "room": room, "guests": guests}


@tool(effect=Effect.READ)
async def weather(context: ToolContext, *, place: Place, days: int = 1) -> str:
    """Tell the weather."""
    return f"{place.city}, {place.country}: {days}"


def test_the_schema_comes_from_the_signature() -> None:
    assert book.parameters == {
        "type": "object",
        "properties": {
            "nights": {"type": "integer", "minimum": 1, "maximum": 30, "description": "How many nights."},
            "room": {"enum": ["double", "single"], "default": "single"},
            "guests": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}], "default": None},
        },
        "required": ["nights"],
        "additionalProperties": False,
    }


def test_the_text_is_the_first_paragraph_of_the_docstring_on_one_line() -> None:
    assert book.description == "Book a room in the hotel."


def test_the_declarations_are_kept() -> None:
    assert (book.name, book.effect, book.timeout) == ("book", Effect.KEYED, 7.5)
    assert (weather.effect, weather.timeout) == (Effect.READ, 30.0)


def test_a_struct_argument_is_described_in_place_of_a_title() -> None:
    assert weather.parameters["properties"]["place"] == {"$ref": "#/$defs/Place"}
    assert weather.parameters["$defs"]["Place"]["properties"]["city"] == {"type": "string"}
    assert "title" not in weather.parameters


def test_a_name_can_be_given() -> None:
    async def f(context: ToolContext) -> int:
        """Do it."""
        return 1

    made = tool(effect="unsafe", name="launch")(f)
    assert (made.name, made.parameters["properties"], made.effect) == ("launch", {}, Effect.UNSAFE)


async def _run(made: Tool, arguments: dict[str, Any]) -> Any:
    return await made.run(NO_CONTEXT, msgspec.convert(arguments, made.arguments, strict=True))


async def test_decoded_arguments_and_defaults_reach_the_function() -> None:
    assert await _run(book, {"nights": 3, "guests": ["Ada"]}) == {"nights": 3, "room": "single", "guests": ["Ada"]}
    assert await _run(weather, {"place": {"city": "Lisbon"}}) == "Lisbon, PT: 1"


async def test_the_context_is_handed_through() -> None:
    seen: list[object] = []

    async def look(context: ToolContext) -> None:
        """Look at the context."""
        seen.append(context)

    await _run(tool(effect="read")(look), {})
    assert seen == [NO_CONTEXT]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "nights"),
        ({"nights": "3"}, "Expected `int`, got `str`"),
        ({"nights": 3.0}, "Expected `int`, got `float`"),
        ({"nights": True}, "Expected `int`, got `bool`"),
        ({"nights": 0}, ">= 1"),
        ({"nights": 31}, "<= 30"),
        ({"nights": 3, "room": "suite"}, "suite"),
        ({"nights": 3, "guests": "Ada"}, r"\$\.guests"),
        ({"nights": 3, "guests": [1]}, r"\$\.guests\[0\]"),
        ({"nights": 3, "smoking": True}, "smoking"),
    ],
)
async def test_arguments_are_decoded_strictly(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        await _run(book, arguments)


async def _no_docstring(context: ToolContext) -> None: ...


async def _no_context() -> None:
    """Do it."""


def _not_async(context: ToolContext) -> None:
    """Do it."""


async def _positional(context: ToolContext, city: str) -> None:
    """Do it."""


async def _collecting(context: ToolContext, **cities: str) -> None:
    """Do it."""


async def _untyped(context: ToolContext, *, city: str) -> None:
    """Do it."""


del _untyped.__annotations__["city"]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (_no_docstring, "'_no_docstring' has no docstring"),
        (_no_context, "'_no_context' takes no context"),
        (_not_async, "'_not_async' is not async"),
        (_positional, "parameter 'city' is not keyword-only"),
        (_collecting, "parameter 'cities' is not keyword-only"),
        (_untyped, "parameter 'city' has no type"),
    ],
)
def test_a_signature_that_cannot_be_described_is_refused_with_its_reason(function: Any, said: str) -> None:
    with pytest.raises(ToolDefinitionError, match=said) as refused:
        tool(effect="read")(function)
    assert isinstance(refused.value, PluginError)
    assert refused.value.code == "tool_definition"


def test_an_unknown_effect_is_refused() -> None:
    async def f(context: ToolContext) -> None:
        """Do it."""

    with pytest.raises(ValueError, match="harmless"):
        tool(effect="harmless")(f)
