"""What follows from what became of an object, for a pass and for a plan of one alike. Pure."""

from hansa.apply.sync.model import Outcome

CHANGING = ("created", "configured", "deleted")
"""Actions that leave the platform other than it was."""


def is_in_the_way(outcome: Outcome) -> bool:
    """Whether an object is refused because the same one still stands in another namespace of its tenant: there it may be deleted."""
    return all(error.code == "conflict" and error.path == "metadata.namespace" for error in outcome.errors)
