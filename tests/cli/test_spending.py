"""What `hansa usage` and `hansa budget` draw."""

import pytest

from hansa.cli.spending import amount, bar, money


@pytest.mark.parametrize(
    ("value", "whole", "drawn"),
    [
        (0, 10, "·"),
        (0.01, 10, "·"),
        (5, 10, "█" * 10),
        (10, 10, "█" * 20),
        (20, 10, "█" * 20),
        (0.5, 10, "█"),
        (0.25, 10, "▌"),
        (1, 0, "·"),
    ],
)
def test_a_bar_is_as_long_as_its_share_and_never_longer_than_the_whole(value: float, whole: float, drawn: str) -> None:
    assert bar(value, whole) == drawn


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.00"), (1234.5, "1,234.50"), (0.000001, "0.000001"), (0.0203, "0.0203"), (2.0, "2.00")]
)
def test_money_is_told_to_the_cent_or_as_exactly_as_it_is(value: float, text: str) -> None:
    assert money(value) == text


def test_an_amount_has_the_form_of_its_limit() -> None:
    assert amount(1234.5, {"limit": "budget"}) == "1,234.50"
    assert amount(1234, {"limit": "tokensPerDay"}) == "1,234"
