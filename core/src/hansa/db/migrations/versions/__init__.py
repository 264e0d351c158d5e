"""One file a revision, with its SQL beside it."""
