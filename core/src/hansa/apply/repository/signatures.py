"""Who signed a commit, and whether that is believed: ssh keys (`gpg.format = ssh`) by a file of allowed signers, OpenPGP keys by `openpgp`.

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

from hansa.apply.repository import openpgp
from hansa.apply.repository.failures import not_signed
from hansa.apply.repository.settings import GitSettings

NAMESPACE = "git"
MAX_SIGNATURE = 64 * 1024
"""Bytes that a signature may have: the longest of any algorithm is 40 KiB as text, and most are below one."""
_SSH = b"-----BEGIN SSH SIGNATURE-----"
_OPENPGP = b"-----BEGIN PGP SIGNATURE-----"
_FORMATS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


class Signer(msgspec.Struct, frozen=True):
    """One line of the file: who, with which key, from when until when (UTC; None: no bound)."""

    principals: str
    key: str
    after: datetime | None = None
    before: datetime | None = None


class Believed(msgspec.Struct, frozen=True):
    """Whose signatures are believed: by ssh keys, by OpenPGP keys. None of a kind: no file is named for it."""

    signers: tuple[Signer, ...] = ()
    certificates: tuple[openpgp.Certificate, ...] = ()


def read_believed(settings: GitSettings) -> Believed:
    """Whose signatures the files of the settings say are believed. Raises `RepositoryRefused`, also when one of them names nobody."""
    ssh, pgp = settings.allowed_signers_file, settings.allowed_openpgp_keys_file
    if not ssh and not pgp:
        raise not_signed(
            "signed commits are asked for, and HANSA_GIT_ALLOWED_SIGNERS_FILE names no file of allowed signers, "
            "nor HANSA_GIT_ALLOWED_OPENPGP_KEYS_FILE one of OpenPGP keys"
        )
    return Believed(_read_signers(ssh) if ssh else (), openpgp.read_certificates(pgp) if pgp else ())


def verify(commit: Commit, believed: Believed, now: datetime) -> str:
    """Who signed a commit. Raises `RepositoryRefused`, which names it."""
    name = commit.id.decode()
    signature = commit.gpgsig
    if not signature:
        raise not_signed(f"commit {name} is not signed")
    if len(signature) > MAX_SIGNATURE:
        raise not_signed(f"the signature of commit {name} has {len(signature)} bytes, and may have {MAX_SIGNATURE}")
    text = signature.lstrip()
    if text.startswith(_SSH):
        if not believed.signers:
            raise not_signed(f"commit {name} is signed with an ssh key, and HANSA_GIT_ALLOWED_SIGNERS_FILE names no file")
        return _verify_ssh(commit, believed.signers, now)
    if text.startswith(_OPENPGP):
        if not believed.certificates:
            raise not_signed(f"commit {name} is signed with an OpenPGP key, and HANSA_GIT_ALLOWED_OPENPGP_KEYS_FILE names no file")
        return openpgp.verify(name, commit.raw_without_sig(), signature, certificates=believed.certificates, now=now)
    raise not_signed(f"commit {name} is signed with something else than an ssh or OpenPGP key")


def _read_signers(path: str) -> tuple[Signer, ...]:
    try:
        with Path(path).open(encoding="utf-8") as file:
            lines = list(load_allowed_signers_file(file))
        found = tuple(signer for line in lines if (signer := _signer(line)) is not None)
    except (OSError, UnicodeDecodeError) as error:
        raise not_signed(f"the allowed signers file {path} can't be read: {type(error).__name__}") from error
    except (ValueError, IndexError, NotImplementedError) as error:
        raise not_signed(f"the allowed signers file {path} can't be understood: {error}") from error
    if not found:
        raise not_signed(f"the allowed signers file {path} names no key that may sign commits (ssh-ed25519 or ssh-rsa)")
    return found


def _verify_ssh(commit: Commit, signers: Sequence[Signer], now: datetime) -> str:
    name = commit.id.decode()
    try:
        key = check_signature(commit.raw_without_sig(), commit.gpgsig, NAMESPACE)
    except InvalidSignature:
        raise not_signed(f"the signature of commit {name} does not fit what it says") from None
    except Exception as error:
        # Made up by whoever could write to the repository: whatever it breaks, it is no signature.
        raise not_signed(f"the signature of commit {name} can't be understood: {type(error).__name__}") from None
    known = [signer for signer in signers if signer.key == key.openssh_str()]
    valid = [signer for signer in known if (signer.after is None or signer.after <= now) and (signer.before is None or now < signer.before)]
    if not known:
        raise not_signed(f"commit {name} is signed with a key that is not allowed ({key.sha256_str()})")
    if not valid:
        raise not_signed(f"commit {name} is signed with a key of {known[0].principals} that is not valid now")
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
