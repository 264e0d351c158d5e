"""Who signed a commit: ssh signatures (`gpg.format = ssh`), checked against a file of allowed signers in ssh-keygen's form.

Fails closed: whatever can't be understood is no signature. Warning: sshsig and dulwich each check less than git does (no validity, no
namespaces, or one expired line refuses all), so what a line of the file allows is decided here; sshsig does the mathematics.
"""

import fnmatch
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from dulwich.objects import Commit
from sshsig.allowed_signers import AllowedSigner, load_allowed_signers_file
from sshsig.ssh_public_key import PublicKey
from sshsig.sshsig import InvalidSignature, check_signature

from hansa.apply.repository.failures import Reason, RepositoryRefused

NAMESPACE = "git"
_SSH = b"-----BEGIN SSH SIGNATURE-----"
_FORMATS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_HINT = "Sign with `git config gpg.format ssh` and `git commit -S`; HANSA_GIT_ALLOWED_SIGNERS_FILE lists whose keys are believed."


class Signer(msgspec.Struct, frozen=True):
    """One line of the file: who, with which key, from when until when (UTC; None: no bound)."""

    principals: str
    key: str
    after: datetime | None = None
    before: datetime | None = None


def read_signers(path: str) -> tuple[Signer, ...]:
    """The signers that a file allows to sign commits. Raises `RepositoryRefused`, also when it names none."""
    if not path:
        raise _refused("signed commits are asked for, and HANSA_GIT_ALLOWED_SIGNERS_FILE names no file of allowed signers")
    try:
        with Path(path).open(encoding="utf-8") as file:
            lines = list(load_allowed_signers_file(file))
        found = tuple(signer for line in lines if (signer := _signer(line)) is not None)
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(f"the allowed signers file {path} can't be read: {type(error).__name__}") from error
    except (ValueError, IndexError, NotImplementedError) as error:
        raise _refused(f"the allowed signers file {path} can't be understood: {error}") from error
    if not found:
        raise _refused(f"the allowed signers file {path} names no key that may sign commits (ssh-ed25519 or ssh-rsa)")
    return found


def verify(commit: Commit, signers: Sequence[Signer], now: datetime) -> str:
    """Who signed a commit. Raises `RepositoryRefused`, which names it."""
    name = commit.id.decode()
    signature = commit.gpgsig
    if not signature:
        raise _refused(f"commit {name} is not signed")
    if not signature.lstrip().startswith(_SSH):
        raise _refused(f"commit {name} is signed with something else than an ssh key")
    try:
        key = check_signature(commit.raw_without_sig(), signature, NAMESPACE)
    except InvalidSignature:
        raise _refused(f"the signature of commit {name} does not fit what it says") from None
    except Exception as error:
        # Made up by whoever could write to the repository: whatever it breaks, it is no signature.
        raise _refused(f"the signature of commit {name} can't be understood: {type(error).__name__}") from None
    known = [signer for signer in signers if signer.key == key.openssh_str()]
    valid = [signer for signer in known if (signer.after is None or signer.after <= now) and (signer.before is None or now < signer.before)]
    if not known:
        raise _refused(f"commit {name} is signed with a key that is not allowed ({key.sha256_str()})")
    if not valid:
        raise _refused(f"commit {name} is signed with a key of {known[0].principals} that is not valid now")
    return valid[0].principals


def _signer(line: AllowedSigner) -> Signer | None:
    """What a line allows; None: not to sign commits, or with a kind of key that can't be checked here."""
    options = line.options or {}
    namespaces = options.get("namespaces", NAMESPACE).split(",")
    if "cert-authority" in options or not any(fnmatch.fnmatchcase(NAMESPACE, each.strip()) for each in namespaces):
        return None
    try:
        key = PublicKey.from_openssh_str(f"{line.key_type} {line.base64_key}")
    except NotImplementedError:
        return None
    return Signer(line.principals, key.openssh_str(), _moment(options.get("valid-after")), _moment(options.get("valid-before")))


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    digits = text.removesuffix("Z")
    if len(digits) not in _FORMATS:
        raise ValueError(f"{text!r} is no time")
    return datetime.strptime(digits, _FORMATS[len(digits)]).replace(tzinfo=UTC)


def _refused(detail: str) -> RepositoryRefused:
    return RepositoryRefused(Reason.SIGNATURE_INVALID, detail, hint=_HINT)
