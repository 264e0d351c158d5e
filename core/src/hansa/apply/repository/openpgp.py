"""OpenPGP signatures of commits, as people make them with GnuPG and forges with their own key: checked by Sequoia against a file of keys.

Sequoia judges a key by the time that the signature says it was made at, which whoever made it chose. So what has ended by now is refused
here: a stolen key would else sign for ever, by an old date. Fails closed. Warning: which subkeys have ended is read from the file as it is
written, not proven; whoever writes that file decides who is believed anyway.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from operator import itemgetter
from pathlib import Path

import msgspec
from pysequoia import Cert, Sig
from pysequoia import verify as check
from pysequoia.packet import Packet, PacketPile, SignatureType, Tag  # pyright: ignore[reportMissingModuleSource] - it is in the one library

from hansa.apply.repository.failures import not_signed

_TIME = "%Y-%m-%dT%H:%MZ"
_SECRET = b"-----BEGIN PGP PRIVATE KEY BLOCK-----"


class Key(msgspec.Struct, frozen=True):
    """A key: fingerprint and short form, hexadecimal; from when on the file vouches for it; of a subkey also its end and revocation."""

    fingerprint: str
    short: str
    since: datetime | None
    ends: datetime | None = None
    revoked: bool = False


class Certificate(msgspec.Struct, frozen=True):
    """A public key as OpenPGP means it, with its subkeys; `who` it says it is of. `flaw`: why it can't be used at all; empty: it can."""

    who: str
    cert: Cert
    keys: Sequence[Key]
    ends: datetime | None = None
    flaw: str = ""


def read_certificates(path: str) -> tuple[Certificate, ...]:
    """The certificates of a file, armored or not, one after the other. Raises `RepositoryRefused`, also when there is none."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise not_signed(f"the file of OpenPGP keys {path} can't be read: {type(error).__name__}") from error
    if _is_private(data):
        raise not_signed(f"the file of OpenPGP keys {path} holds a private key: export public ones, with `gpg --armor --export`")
    merged: dict[str, Cert] = {}
    try:
        for cert in Cert.split_bytes(data):
            before = merged.get(cert.fingerprint)
            # Written twice, as when its revocation or a later end was added below: both hold.
            merged[cert.fingerprint] = before.merge(cert) if before is not None else cert
        found = tuple(_certificate(cert) for cert in merged.values())
    except Exception as error:
        # Sequoia's errors are of no kind of their own.
        raise not_signed(f"the file of OpenPGP keys {path} can't be understood: {_first_line(error)}") from error
    if not found:
        raise not_signed(f"the file of OpenPGP keys {path} holds no key: write what `gpg --armor --export` says into it")
    return found


def verify(name: str, data: bytes, signature: bytes, *, certificates: Sequence[Certificate], now: datetime) -> str:
    """Who signed the data of the commit with this name. Raises `RepositoryRefused`, which names commit and key."""
    try:
        found = Sig.from_bytes(signature)
        handles = {each for each in (found.issuer_fingerprint, found.issuer_key_id) if each}
    except BaseException as error:
        # Made up by whoever could write to the repository: whatever it breaks, it is no signature. What Rust panics of is no Exception.
        raise not_signed(f"the signature of commit {name} can't be understood: {_first_line(error)}") from None
    shown = (found.issuer_fingerprint or found.issuer_key_id or "which it does not name").upper()
    known = [(each, key) for each in certificates for key in each.keys if handles & {key.fingerprint, key.short}]
    if not known:
        raise not_signed(f"commit {name} is signed with an OpenPGP key that is not allowed ({shown})")
    ended = [(_ended(each, key, now), each) for each, key in known]
    usable = {(each.cert.fingerprint, key.fingerprint): (each, key) for (each, key), (why, _) in zip(known, ended, strict=True) if not why}
    if not usable:
        why, whose = ended[0]
        raise not_signed(f"commit {name} is signed with the OpenPGP key {shown} of {whose.who}, {why}")
    if found.expiration is not None and found.expiration <= now:
        raise not_signed(f"the signature of commit {name} with the OpenPGP key {shown} ended at {found.expiration:{_TIME}}")
    certs = [each.cert for each, _ in usable.values()]

    def store(_: list[str]) -> list[Cert]:
        return certs

    try:
        made = check(bytes=data, store=store, signature=found).valid_sigs
    except BaseException:
        # As above. Why it is none, Sequoia does not say.
        made = []
    for one in made:
        if (one.certificate, one.signing_key) in usable:
            return usable[one.certificate, one.signing_key][0].who
    since = [key.since for _, key in usable.values() if key.since is not None]
    if found.created is not None and since and found.created < min(since):
        raise not_signed(
            f"commit {name} was signed at {found.created:{_TIME}}, and what the file has of the OpenPGP key {shown} was made at "
            f"{min(since):{_TIME}}: keep the older certificate too, beside the renewed one"
        )
    raise not_signed(f"the signature of commit {name} with the OpenPGP key {shown} does not fit what it says, or that key may not sign")


def _is_private(data: bytes) -> bool:
    """Whether a file holds a private key, armored or not."""
    if _SECRET in data or data[:1] < b"\x80":  # no packet begins so: it is text
        return _SECRET in data
    try:
        return any(packet.tag in (Tag.SecretKey, Tag.SecretSubkey) for packet in list[Packet](PacketPile.from_bytes(data)))
    except Exception:
        # Sequoia's errors are of no kind of their own; what can't be read is told by whoever reads the certificates.
        return False


def _certificate(cert: Cert) -> Certificate:
    who, keys = cert.fingerprint.upper(), tuple(_keys(cert))
    try:
        ends, names = cert.expiration, [str(each) for each in cert.user_ids]
    except Exception as error:
        # Sequoia's errors are of no kind of their own; that one key is too old for it must not shut out the others of the file.
        return Certificate(who, cert, keys, flaw=f"which can't be used: {_first_line(error)}")
    return Certificate(names[0] if names else who, cert, keys, ends, "which was revoked" if cert.is_revoked else "")


def _keys(cert: Cert) -> Iterator[Key]:
    packets: list[Packet] = list(PacketPile.from_bytes(bytes(cert)))
    starts = [number for number, packet in enumerate(packets) if packet.tag in (Tag.PublicKey, Tag.PublicSubkey)]
    since: datetime | None = None
    for start, end in zip(starts, [*starts[1:], len(packets)], strict=True):
        key, made = packets[start], [(each.signature_created, each) for each in packets[start + 1 : end]]
        bound = [(when, each) for when, each in made if when is not None and each.signature_type == SignatureType.SubkeyBinding]
        # Whoever lets a key live longer, or less long, binds it anew.
        lasts = max(bound, key=itemgetter(0))[1].key_validity_period if bound else None
        ends = key.key_created + lasts if key.key_created is not None and lasts is not None else None
        revoked = any(each.signature_type == SignatureType.SubkeyRevocation for _, each in made)
        times = [when for when, _ in made if when is not None]
        # A subkey's is not before its primary key's, which comes first.
        since = max(min(times), since or min(times)) if times else since
        yield Key(key.fingerprint or "", key.key_id or "", since, ends, revoked)


def _ended(certificate: Certificate, key: Key, now: datetime) -> str:
    """Why a key may not sign any more; empty: it may."""
    if certificate.flaw or key.revoked:
        return certificate.flaw or "which was revoked"
    ends = [each for each in (certificate.ends, key.ends) if each is not None and each <= now]
    return f"which ended at {min(ends):{_TIME}}: write the renewed one below it in the file" if ends else ""


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
