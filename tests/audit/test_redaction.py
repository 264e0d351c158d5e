"""No secret gets into the audit trail, in whatever field or text it stands; what is harmless stays readable."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hansa.audit.model import Action, Actor, AuditEvent
from hansa.audit.redaction import MAX_BYTES, difference, safe
from hansa.audit.service import canonical
from hansa.auth import keys

CANARY = "canary-9d1f4e"
KEY = keys.make("live")[0]
FIELDS = (
    *("secret", "clientSecret", "password", "db_passwd", "passphrase", "token", "access_token", "apiKey", "api_key", "API-KEY"),
    *("Authorization", "cookie", "set-cookie", "privateKey", "private_key", "pepper", "bearer", "X-Api-Key", "credential"),
)
TEXTS = (
    KEY,
    f"the key is {KEY}, keep it",
    f"Bearer {CANARY}abcdef",
    f"postgresql://hansa:{CANARY}@127.0.0.1/db",
    f"-----BEGIN EC PRIVATE KEY-----\n{CANARY}\n-----END EC PRIVATE KEY-----",
    f"-----BEGIN PRIVATE KEY-----\n{CANARY}",
    f"eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1In0.{CANARY}",
)


def told(value: Any) -> str:
    event = AuditEvent(
        action=Action.OBJECT_CHANGED, actor=Actor(name="key:x"), target="Agent/a", before=value, after=value, reason=str(value)
    )
    return canonical(msgspec.structs.replace(event, reason=""))


@pytest.mark.parametrize("field", FIELDS)
def test_what_a_secret_field_says_is_left_out(field: str) -> None:
    for value in ({field: CANARY}, {"spec": [{field: CANARY}]}, {field: {"inner": [CANARY]}}, {field: {"value": CANARY}}):
        assert CANARY not in told(value), value


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_what_has_the_form_of_a_secret_is_left_out_wherever_it_stands(text: str) -> None:
    event = AuditEvent(
        action=Action.OBJECT_CHANGED, actor=Actor(name=text), target=text, before={"note": text}, after=[text, {text: 1}], reason=text
    )
    found = canonical(event)
    assert CANARY not in found
    assert KEY not in found
    assert KEY[-36:] not in found


def test_names_of_secrets_numbers_and_words_stay() -> None:
    spec = {
        "credentials": {"env": "ANTHROPIC_API_KEY"},
        "other": {"credentials": {"secret": "anthropic"}},
        "limits": {"tokens": 5, "tokensPerDay": 9},
        "instructions": "Greet.",
        "on": True,
    }
    assert safe(spec) == spec


def test_what_is_too_large_is_named_by_its_digest() -> None:
    found = safe({"instructions": "x" * MAX_BYTES, "a": ["y" * 100] * 200})
    assert set(found) == {"left_out", "sha256"}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda each: st.lists(each) | st.dictionaries(st.text(), each)
    )
)
@settings(max_examples=200, deadline=None)
def test_whatever_is_told_is_canonical_json_that_the_database_takes(value: Any) -> None:
    text = told(value)
    assert "\\u0000" not in text
    assert msgspec.json.encode(msgspec.json.decode(text), order="sorted").decode() == text


def test_of_a_change_only_what_differs_is_told() -> None:
    before = {"a": 1, "b": {"c": [1, 2], "d": 4}, "gone": True}
    after = {"a": 1, "b": {"c": [1, 3], "d": 4}, "new": None}
    assert difference(before, after) == ({"b": {"c": [1, 2]}, "gone": True}, {"b": {"c": [1, 3]}, "new": None})
