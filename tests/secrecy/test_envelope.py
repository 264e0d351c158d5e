"""The inner envelope: what was changed, cut or moved is refused, never given out."""

from uuid import UUID

import pytest

from hansa.errors import Damaged
from hansa.secrets.envelope import binding, new_data_key, seal, unseal

A, B = UUID(int=1), UUID(int=2)
KEY = new_data_key()
HERE = binding(A, "smtp", 1)


def test_a_value_comes_out_as_it_went_in() -> None:
    assert unseal(KEY, seal(KEY, b"open sesame", HERE), HERE) == b"open sesame"


def test_one_value_is_never_sealed_alike_twice() -> None:
    assert seal(KEY, b"open sesame", HERE) != seal(KEY, b"open sesame", HERE)


@pytest.mark.parametrize(
    "elsewhere", [binding(B, "smtp", 1), binding(A, "smtq", 1), binding(A, "smtp", 2)], ids=["tenant", "name", "version"]
)
def test_a_value_that_was_moved_is_refused(elsewhere: bytes) -> None:
    with pytest.raises(Damaged, match="moved"):
        unseal(KEY, seal(KEY, b"open sesame", HERE), elsewhere)


def test_a_value_sealed_by_another_key_is_refused() -> None:
    with pytest.raises(Damaged):
        unseal(new_data_key(), seal(KEY, b"open sesame", HERE), HERE)


def test_a_changed_or_cut_value_is_refused_wherever_it_is_changed_or_cut() -> None:
    sealed = seal(KEY, b"open sesame", HERE)
    for place in range(len(sealed)):
        wrong = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        for each in (wrong, sealed[:place]):
            with pytest.raises(Damaged) as refused:
                unseal(KEY, each, HERE)
            assert "sesame" not in str(refused.value)
