"""What is taken out of the log and put back is the same to the byte, and nobody can forge a reference."""

import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hansa.errors import Damaged
from hansa.runs.model import canonical
from hansa.runs.values import INLINE_BYTES, join_fields, join_whole, reference, split_fields, split_whole, wanted

FORGED = {"$value": f"sha256:{'0' * 64}", "bytes": 5}
LARGE = "x" * INLINE_BYTES
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    # Large ones, and what looks like a reference, must come up often.
    | st.just(LARGE)
    | st.just(FORGED)
    | st.just({"$value": 1})
    | st.just({"a": FORGED})
    | st.just({"$value": FORGED, "more": LARGE}),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.just("$value"), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8) | st.just("$value"), json_values, max_size=6))
def test_fields_come_back_as_they_went(data: dict[str, Any]) -> None:
    text, taken = split_fields(data)
    kept = msgspec.json.decode(text)
    assert canonical(join_fields(kept, taken)) == canonical(data)
    assert all(hashlib.sha256(body).digest() == digest for digest, body in taken.items())
    assert wanted(kept.values()) == taken.keys()
    assert kept.keys() == data.keys()
    assert all(len(canonical(value)) <= INLINE_BYTES for value in kept.values())


@given(json_values)
def test_wholes_come_back_as_they_went(value: Any) -> None:
    text, taken = split_whole(value)
    kept = msgspec.json.decode(text)
    assert canonical(join_whole(kept, taken)) == canonical(value)
    assert wanted([kept]) == taken.keys()
    assert len(text) <= INLINE_BYTES


@given(st.dictionaries(st.sampled_from(["input", "text"]), json_values, max_size=2), st.binary(min_size=32, max_size=32))
def test_no_data_is_answered_with_a_value_that_it_did_not_bring(data: dict[str, Any], other: bytes) -> None:
    text, taken = split_fields(data)
    for there in map(reference, msgspec.json.decode(text).values()):
        assert there is None or there.digest in taken
    secret = {bytes(32): b'"secret"', other: b'"secret"'}
    joined = join_fields(msgspec.json.decode(text), {**secret, **taken})
    assert canonical(joined) == canonical(data)


@given(json_values)
def test_the_same_value_has_one_digest_wherever_it_stands(value: Any) -> None:
    whole, fields = split_whole(value), split_fields({"input": value, "padding": LARGE})
    assert set(whole[1]) <= set(fields[1])
    assert msgspec.json.decode(whole[0]) == msgspec.json.decode(fields[0])["input"]


def test_the_splitting_can_be_forged_without_its_escape() -> None:
    """The broken control: in place as it came, a made-up reference would be answered with another's value."""
    assert join_fields({"input": FORGED}, {bytes(32): b'"secret"'}) == {"input": "secret"}


@pytest.mark.parametrize("size", [INLINE_BYTES - 2, INLINE_BYTES - 1])
def test_a_value_stays_in_place_up_to_its_bound(size: int) -> None:
    text, taken = split_fields({"text": "x" * size, "more": "y" * 500})
    assert (len(taken), b"xxx" in text) == ((0, True) if size == INLINE_BYTES - 2 else (1, False))
    assert b"yyy" in text


def test_small_data_is_left_as_it_is() -> None:
    assert split_fields({"b": 1, "a": [2.5, None]}) == (b'{"a":[2.5,null],"b":1}', {})


@pytest.mark.parametrize(
    "damaged",
    [
        {"$value": "sha256:00", "bytes": 1},
        {"$value": "md5:" + "0" * 64, "bytes": 1},
        {"$value": "sha256:" + "0" * 64},
        {"$value": "sha256:" + "0" * 64, "bytes": -1},
        {"$value": "sha256:" + "0" * 64, "bytes": 1, "more": 2},
        {"$value": 7, "bytes": 1},
    ],
)
def test_a_reference_that_is_none_of_ours_is_damage(damaged: dict[str, Any]) -> None:
    with pytest.raises(Damaged, match="can't be read"):
        join_fields({"text": damaged}, {})


def test_a_missing_value_is_named() -> None:
    text, taken = split_fields({"text": LARGE})
    (digest,) = taken
    with pytest.raises(Damaged, match=f"the value sha256:{digest.hex()} is missing"):
        join_fields(json.loads(text), {})
    with pytest.raises(Damaged, match="has been changed"):
        join_fields(json.loads(text), {digest: Damaged("has been changed")})
