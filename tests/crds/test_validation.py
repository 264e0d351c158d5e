"""What a person is told about an object that is wrong."""

from datetime import date
from typing import Any, cast

import msgspec
import pytest

from crds import objects
from crds.answers import only, read, told
from hansa_crds import API_VERSION, KINDS, check


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("modle", "model"), ("Model", "model"), ("input_template", "inputTemplate"), ("output-schema", "outputSchema"), ("tool", "tools")],
)
def test_a_mistyped_field_is_named_with_the_one_that_was_meant(wrong: str, right: str) -> None:
    data = objects.agent()
    data["spec"][wrong] = data["spec"].pop(right)
    bad = only(data)
    assert (bad.path, bad.code, bad.keys) == (f"spec.{wrong}", "unknown_field", ("spec", wrong))
    assert bad.suggestion == f"did you mean `{right}`?"
    assert f"`{wrong}`" in bad.message


def test_a_field_in_the_wrong_place_is_told_its_place() -> None:
    data = objects.agent(temperature=1, timeoutSeconds=5)
    data["instructions"] = data["spec"]["instructions"]
    bad = told(data)
    assert bad["spec.temperature"].suggestion == "it belongs at `model.params.temperature`"
    assert bad["spec.timeoutSeconds"].suggestion == "it belongs at `limits.timeoutSeconds`"
    assert bad["instructions"].suggestion == "it belongs at `spec.instructions`"


def test_an_unknown_field_that_resembles_none_is_answered_with_the_known_ones() -> None:
    assert only(objects.region(zzz=1)).suggestion == "known fields: `displayName`, `cordoned`"


@pytest.mark.parametrize("field", ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"])
def test_fields_that_kubernetes_keeps_for_itself_are_refused(field: str) -> None:
    data = objects.agent()
    data["metadata"][field] = "x"
    assert (only(data).path, only(data).code) == (f"metadata.{field}", "unknown_field")


def test_status_is_not_for_people_to_write() -> None:
    assert only({**objects.agent(), "status": {}}).path == "status"


@pytest.mark.parametrize(
    ("spec", "path", "message", "suggestion"),
    [
        ({"instructions": True}, "spec.instructions", "expected a string, got a boolean", "put it in quotes"),
        ({"instructions": 5}, "spec.instructions", "expected a string, got an integer", "put it in quotes"),
        ({"instructions": date(2030, 1, 31)}, "spec.instructions", "expected a string, got a date", "put it in quotes"),
        ({"instructions": None}, "spec.instructions", "expected a string, got null", ""),
        ({"suspend": "yes"}, "spec.suspend", "expected a boolean, got a string", "write it without quotes"),
        ({"suspend": 1}, "spec.suspend", "expected a boolean, got an integer", ""),
        ({"limits": {"turns": "3"}}, "spec.limits.turns", "expected an integer, got a string", "write it without quotes"),
        ({"limits": {"turns": 3.0}}, "spec.limits.turns", "expected an integer, got a number", "write it without a decimal point"),
        ({"limits": {"turns": True}}, "spec.limits.turns", "expected an integer, got a boolean", ""),
        ({"limits": []}, "spec.limits", "expected an object, got a list", ""),
        ({"tools": {"plugin": "clock"}}, "spec.tools", "expected a list, got an object", "write it as a list, even of one entry"),
        ({"tools": ["clock"]}, "spec.tools[0]", "expected an object, got a string", ""),
        ({"model": "small"}, "spec.model", "expected an object, got a string", ""),
        ({"outputSchema": "object"}, "spec.outputSchema", "expected an object, got a string", ""),
    ],
)
def test_a_wrong_type_says_what_was_expected_and_what_was_found(spec: dict[str, Any], path: str, message: str, suggestion: str) -> None:
    bad = only(objects.agent(**spec))
    assert (bad.path, bad.code, bad.message, bad.suggestion) == (path, "type", message, suggestion)


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ({"limits": {"turns": 0}}, "spec.limits.turns", "must be from 1 to 200, got 0"),
        ({"limits": {"turns": 201}}, "spec.limits.turns", "must be from 1 to 200, got 201"),
        ({"limits": {"timeoutSeconds": 86401}}, "spec.limits.timeoutSeconds", "must be from 1 to 86400, got 86401"),
        ({"model": {"alias": "a", "params": {"temperature": 2.5}}}, "spec.model.params.temperature", "must be from 0 to 2, got 2.5"),
        ({"model": {"alias": "a", "params": {"maxTokens": 0}}}, "spec.model.params.maxTokens", "must be from 1 to 65536, got 0"),
    ],
)
def test_a_number_out_of_range_says_the_allowed_range(spec: dict[str, Any], path: str, message: str) -> None:
    bad = only(objects.agent(**spec))
    assert (bad.path, bad.code, bad.message) == (path, "range", message)


@pytest.mark.parametrize(
    ("spec", "path", "message"),
    [
        ({"instructions": ""}, "spec.instructions", "must not be empty"),
        ({"instructions": "x" * 32769}, "spec.instructions", "must have at most 32768 characters, got 32769"),
        ({"description": "x" * 1001}, "spec.description", "must have at most 1000 characters, got 1001"),
        ({"examples": [{"input": "a", "output": 1}] * 33}, "spec.examples", "must have at most 32 entries, got 33"),
        (
            {"model": {"alias": "a", "fallbacks": [{"alias": f"a{n}"} for n in range(9)]}},
            "spec.model.fallbacks",
            "must have at most 8 entries, got 9",
        ),
    ],
)
def test_a_length_out_of_bounds_says_the_bound(spec: dict[str, Any], path: str, message: str) -> None:
    bad = only(objects.agent(**spec))
    assert (bad.path, bad.code, bad.message) == (path, "length", message)


@pytest.mark.parametrize("name", ["One", "one two", "-one", "one-", "one.two", "one_two", "é", "one\n"])
def test_a_name_that_kubernetes_would_refuse_is_refused(name: str) -> None:
    data = objects.agent()
    data["metadata"]["name"] = name
    bad = only(data)
    assert (bad.path, bad.code) == ("metadata.name", "pattern")
    assert bad.message == "must be lower-case letters, digits and `-`, with a letter or digit at both ends"


def test_a_secret_written_in_place_of_its_variable_is_refused_and_not_repeated() -> None:
    bad = only(objects.model_provider(credentials={"env": "not-a-variable-but-a-secret"}))
    assert (bad.path, bad.code) == ("spec.credentials.env", "pattern")
    assert "not-a-variable" not in bad.message + bad.suggestion


@pytest.mark.parametrize(
    "endpoint", ["ftp://a", "a.example.org", "http://", "http://user:pass@a.example.org", "http://a b", "file:///etc/passwd", "http://a/#x"]
)
def test_an_endpoint_that_is_not_a_plain_http_address_is_refused(endpoint: str) -> None:
    bad = only(objects.tool_server(endpoint=endpoint))
    assert (bad.path, bad.code) == ("spec.endpoint", "pattern")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:11434/v1", "https://[::1]/", "https://a.example.org/v1?api-version=1"])
def test_an_http_address_is_an_endpoint(endpoint: str) -> None:
    assert read(objects.tool_server(endpoint=endpoint))


@pytest.mark.parametrize(("model", "got"), [({}, "got none of them"), ({"alias": "a", "ref": "p/m"}, "got `alias`, `ref`")])
def test_a_model_is_named_by_exactly_one_of_alias_and_ref(model: dict[str, Any], got: str) -> None:
    bad = only(objects.agent(model=model))
    assert (bad.path, bad.code, bad.message) == ("spec.model", "one_of", f"exactly one of `alias`, `ref` must be set, {got}")
    fallback = only(objects.agent(model={"alias": "b", "fallbacks": [model]}))
    assert (fallback.path, fallback.code) == ("spec.model.fallbacks[0]", "one_of")


@pytest.mark.parametrize("tools", [{}, {"plugin": "clock", "toolServer": "search"}, {"plugin": None}])
def test_tools_are_of_exactly_one_plugin_or_server(tools: dict[str, Any]) -> None:
    bad = only(objects.agent(tools=[tools]))
    assert (bad.path, bad.code) == ("spec.tools[0]", "one_of")


def test_a_field_that_is_null_counts_as_left_out() -> None:
    agent = read(objects.agent(model={"alias": "small", "ref": None, "params": {"temperature": None}}, outputSchema=None))
    assert agent == read(objects.agent(model={"alias": "small"}, outputSchema=None))


@pytest.mark.parametrize(("template", "count"), [("Review:", "not at all"), ("{input} {input}", "2 times"), ("", "not at all")])
def test_an_input_template_has_its_input_exactly_once(template: str, count: str) -> None:
    bad = only(objects.agent(inputTemplate=template))
    assert (bad.path, bad.code) == ("spec.inputTemplate", "pattern")
    assert bad.message == f"must contain `{{input}}` exactly once, has it {count}"


@pytest.mark.parametrize(
    ("schema", "code", "suggestion"),
    [
        ({}, "required", "write `type: object` and its `properties`"),
        ({"type": "objekt"}, "one_of", "did you mean `object`?"),
        ({"type": ["string", "nul"]}, "one_of", "did you mean `null`?"),
        ({"type": 1}, "one_of", ""),
        ({"type": []}, "one_of", ""),
    ],
)
def test_an_output_schema_says_its_type(schema: dict[str, Any], code: str, suggestion: str) -> None:
    bad = only(objects.agent(outputSchema=schema))
    assert (bad.path, bad.code) == ("spec.outputSchema.type", code)
    assert suggestion in bad.suggestion


def test_an_effect_is_one_of_the_four() -> None:
    bad = told(objects.tool_server(effects={"search": "Read", "write it": "read", "fetch": 1}))
    assert bad["spec.effects.search"].code == "one_of"
    assert bad["spec.effects.search"].suggestion == "did you mean `read`?"
    assert bad['spec.effects["write it"]'].code == "pattern"
    assert bad["spec.effects.fetch"].code == "type"


def test_an_unknown_kind_lists_the_known_ones_and_the_one_meant() -> None:
    bad = only({**objects.agent(), "kind": "Agnet"})
    assert (bad.path, bad.code, bad.suggestion) == ("kind", "kind", "did you mean `Agent`?")
    assert all(f"`{kind}`" in bad.message for kind in KINDS)


@pytest.mark.parametrize("kind", [1, None, ["Agent"], {}, True])
def test_a_kind_that_is_no_word_is_refused(kind: Any) -> None:
    assert only({**objects.agent(), "kind": kind}).path == "kind"


@pytest.mark.parametrize("version", ["hansa.dev/v1", "v1", "kagent.dev/v1alpha1"])
def test_another_version_is_told_the_right_one_and_the_rest_is_judged_too(version: str) -> None:
    bad = told({**objects.agent(limits={"turns": 0}), "apiVersion": version})
    assert set(bad) == {"apiVersion", "spec.limits.turns"}
    assert bad["apiVersion"].code == "version"
    assert bad["apiVersion"].suggestion == f"write `apiVersion: {API_VERSION}`"


@pytest.mark.parametrize("field", ["apiVersion", "kind", "metadata", "spec"])
def test_a_missing_part_is_named(field: str) -> None:
    data = objects.agent()
    del data[field]
    assert (only(data).path, only(data).code) == (field, "required")


@pytest.mark.parametrize("field", ["instructions", "model"])
def test_a_missing_field_is_named_with_what_it_is_for(field: str) -> None:
    data = objects.agent()
    del data["spec"][field]
    bad = only(data)
    assert (bad.path, bad.code, bad.message) == (f"spec.{field}", "required", f"`{field}` is missing")
    assert bad.suggestion


@pytest.mark.parametrize("data", [None, True, 1, 1.5, "text", [], [objects.agent()], date(2030, 1, 31), {1}, b"x", object()])
def test_what_is_no_object_at_all_is_refused(data: Any) -> None:
    bad = only(data)
    assert (bad.path, bad.code) == ("", "type")


def test_a_model_name_or_alias_stands_for_one_model_only() -> None:
    models = [{"name": "a", "aliases": ["b", "b"]}, {"name": "b"}, {"name": "c", "aliases": ["a"]}]
    bad = told(objects.model_provider(models=models))
    assert set(bad) == {"spec.models[0].aliases[1]", "spec.models[1].name", "spec.models[2].aliases[0]"}
    assert {each.code for each in bad.values()} == {"duplicate"}
    assert bad["spec.models[2].aliases[0]"].message == "`a` already stands at `spec.models[0].name`"


def test_a_plugin_stands_in_one_entry_of_tools_only() -> None:
    bad = only(objects.agent(tools=[{"plugin": "clock", "allow": ["now"]}, {"toolServer": "clock"}, {"plugin": "clock"}]))
    assert (bad.path, bad.code) == ("spec.tools[2]", "duplicate")
    assert bad.message == "`clock` is already entry 0 of `tools`"


@pytest.mark.parametrize("make", [objects.tenant, objects.region])
def test_a_kind_of_the_whole_cluster_has_no_namespace(make: Any) -> None:
    data = make()
    data["metadata"]["namespace"] = "default"
    bad = only(data)
    assert (bad.path, bad.code, bad.suggestion) == ("metadata.namespace", "unknown_field", "remove the field")


def test_a_provider_without_models_is_refused() -> None:
    assert only(objects.model_provider(models=[])).message == "must not be empty"


def test_all_problems_of_an_object_are_told_at_once() -> None:
    data = objects.agent(modle=1, suspend="no", limits={"turns": 0, "tokens": -1}, tools=[{}, {"plugin": 5}], inputTemplate="x")
    data["apiVersion"] = "v1"
    data["metadata"]["name"] = "A"
    assert set(told(data)) == {
        *("apiVersion", "metadata.name", "spec.modle", "spec.suspend", "spec.limits.turns", "spec.limits.tokens"),
        *("spec.tools[0]", "spec.tools[1].plugin", "spec.inputTemplate"),
    }


def test_what_is_left_out_gets_the_documented_default() -> None:
    data = {"apiVersion": API_VERSION, "kind": "Agent", "metadata": {"name": "a"}, "spec": {"instructions": "x", "model": {"alias": "a"}}}
    found = read(data)
    assert msgspec.to_builtins(found) == data
    assert msgspec.convert(msgspec.to_builtins(found), type(found)) == found
    spec = cast("Any", found).spec
    assert (spec.runtime.name, spec.limits.turns, spec.limits.tokens, spec.limits.timeout_seconds, spec.suspend) == (
        "loop",
        16,
        0,
        600,
        False,
    )


WRONG_CREDENTIALS: dict[str, tuple[dict[str, Any], str, str]] = {
    "neither": ({}, "spec.credentials", "exactly one of `env`, `secret` must be set, got none of them"),
    "both": ({"env": "A", "secret": "a"}, "spec.credentials", "got `env`, `secret`"),
    "a key of a variable": ({"env": "A", "key": "k"}, "spec.credentials.key", "may be set only where `secret` is"),
    "a path": ({"secret": "a/b"}, "spec.credentials.secret", "lower-case"),
    "a key with a blank": ({"secret": "a", "key": "a b"}, "spec.credentials.key", "letters, digits"),
    "misspelt": ({"secrt": "a"}, "spec.credentials.secrt", "unknown field"),
}


@pytest.mark.parametrize("wrong", WRONG_CREDENTIALS)
def test_credentials_name_a_variable_or_a_secret(wrong: str) -> None:
    spec, path, told = WRONG_CREDENTIALS[wrong]
    for make in (objects.model_provider, objects.tool_server):
        bad = only(make(credentials=spec))
        assert (bad.path, told in bad.message) == (path, True), bad
        assert check(make(credentials={"secret": "a", "key": "k.1"}))[1] == ()


def test_secrets_are_given_to_tools_of_plugins_alone() -> None:
    given = {"password": {"secret": "mail", "key": "password"}}
    assert check(objects.agent(tools=[{"plugin": "mail", "secrets": given}]))[1] == ()
    bad = only(objects.agent(tools=[{"toolServer": "mail", "secrets": given}]))
    assert (bad.path, bad.message) == ("spec.tools[0].secrets", "may be set only where `plugin` is")
    bad = only(objects.agent(tools=[{"plugin": "mail", "secrets": {"password": {"key": "k"}}}]))
    assert bad.path == "spec.tools[0].secrets.password.secret"
