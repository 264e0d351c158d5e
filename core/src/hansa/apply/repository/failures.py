"""What may be wrong with a repository. Each has a `reason` that stays the same, for the state of a source and for programs.

    Unavailable
    └── RepositoryAway       Unreachable, Damaged: try again
    Invalid
    └── RepositoryRefused    Denied, Gone, NotARepository, EmptyRepository, RefMissing, PathMissing, TooLarge,
                             AddressRefused, SignatureInvalid: a person must do something

Texts never hold a credential, nor the user or password of a URL.
"""

from enum import StrEnum

from hansa.errors import Invalid, Unavailable


class Reason(StrEnum):
    """Why nothing new can be read. The values are stable."""

    UNREACHABLE = "Unreachable"
    DAMAGED = "Damaged"
    DENIED = "Denied"
    GONE = "Gone"
    NOT_A_REPOSITORY = "NotARepository"
    EMPTY = "EmptyRepository"
    REF_MISSING = "RefMissing"
    PATH_MISSING = "PathMissing"
    TOO_LARGE = "TooLarge"
    ADDRESS_REFUSED = "AddressRefused"
    SIGNATURE_INVALID = "SignatureInvalid"


class RepositoryAway(Unavailable):
    """It can't be read now, and may be later."""

    def __init__(self, reason: Reason, detail: str, *, hint: str = "") -> None:
        super().__init__(detail, hint=hint)
        self.reason = reason


class RepositoryRefused(Invalid):
    """It can be read, or is refused for good, and what it says is not to be followed until somebody changes something."""

    def __init__(self, reason: Reason, detail: str, *, hint: str = "") -> None:
        super().__init__(detail, hint=hint)
        self.reason = reason


RepositoryFailure = (RepositoryAway, RepositoryRefused)
_SIGN = (
    "Sign with `git commit -S`. HANSA_GIT_ALLOWED_SIGNERS_FILE lists the ssh keys that are believed, HANSA_GIT_ALLOWED_OPENPGP_KEYS_FILE "
    "holds the OpenPGP keys."
)


def not_signed(detail: str) -> RepositoryRefused:
    """The refusal of what no signature vouches for, with what to do."""
    return RepositoryRefused(Reason.SIGNATURE_INVALID, detail, hint=_SIGN)
