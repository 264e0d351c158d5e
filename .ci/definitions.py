"""The number of the edition of the schema's functions and views: when one has changed, the next number, and the digest of them all.

By the number `hansa migrate` knows a database with newer ones from one with older ones.
"""

from pathlib import Path

from hansa.db.defining import EDITION, read_from

FOLDER = Path(__file__).resolve().parent.parent / "core/src/hansa/db/definitions"


def numbered(folder: Path) -> str:
    """What a folder's `EDITION` has to say."""
    found = read_from(folder)
    known = (folder / EDITION).read_text().split()[1]
    return f"{found.edition + (known != found.digest)} {found.digest}\n"


if __name__ == "__main__":
    (FOLDER / EDITION).write_text(numbered(FOLDER))
