"""Commits signed with OpenPGP keys: signatures by Sequoia made here, some by GnuPG from the files beside, and everything that is not one.

`openpgp/` was written by GnuPG 2.2 under a clock that stood in 2024: keys of grace (Ed25519, signs with a subkey that ends in 2033; again
with that subkey revoked in March, and with its end moved to 2054 in April), heidi (RSA) and ivan (held together by SHA-1), and what each
signed: `data`.
"""

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pysequoia import Cert, CipherSuite, Sig, SignatureMode, Tsk, sign
from pysequoia import verify as check

from hansa import clock
from hansa.apply.repository import openpgp
from hansa.apply.repository.failures import Reason, RepositoryRefused
from hansa.apply.repository.git import open_git
from hansa.apply.repository.location import locate
from hansa.apply.repository.model import Tree, Verify
from hansa.apply.repository.settings import GitSettings
from hansa.apply.repository.signatures import MAX_SIGNATURE
from repository.repos import GitRepo, agents

MADE = Path(__file__).parent / "openpgp"
NAME = "c" * 40
DATA = (MADE / "data").read_bytes()


def person(name: str, *, suite: CipherSuite = CipherSuite.Cv25519, seconds: int | None = None) -> Tsk:
    return Tsk.generate(f"{name} <{name}@example.org>", cipher_suite=suite, validity_seconds=seconds)


def public(*keys: Tsk) -> str:
    return "\n".join(str(each.extract_certificate()) for each in keys)


def signature(key: Tsk, data: bytes) -> str:
    return sign(key.signer(), data, mode=SignatureMode.DETACHED).decode()


def put(repo: GitRepo, text: str) -> str:
    """Make `main` a commit with this text; its name."""
    command = ["git", "hash-object", "-t", "commit", "-w", "--stdin"]
    made = subprocess.run(command, cwd=repo.folder, input=text, capture_output=True, text=True, check=True).stdout.strip()
    repo.git("update-ref", "refs/heads/main", made)
    return made


def with_signature(text: str, armored: str) -> str:
    """The text of a commit with a signature where git puts it."""
    head, _, message = text.partition("\n\n")
    return f"{head}\ngpgsig {armored.strip().replace(chr(10), chr(10) + ' ')}\n\n{message}"


def commit(repo: GitRepo, key: Tsk | None, *names: str) -> str:
    """Commit some agents, signed with a key; the commit's name."""
    repo.commit(agents(*names))
    text = repo.git("cat-file", "commit", "HEAD") + "\n"
    return put(repo, with_signature(text, signature(key, text.encode()))) if key is not None else repo.head


async def read(repo: GitRepo, keys: Path | str, verify: Verify = "head", *, since: str = "", signers: str = "") -> Tree:
    settings = GitSettings(allowed_signers_file=signers, allowed_openpgp_keys_file=str(keys))
    async with open_git(locate(str(repo.folder)), settings, ref="main", verify=verify) as source:
        return await source.tree(await source.look(), since=since)


async def refusal(repo: GitRepo, keys: Path | str, verify: Verify = "head", *, since: str = "", signers: str = "") -> str:
    with pytest.raises(RepositoryRefused) as caught:
        await read(repo, keys, verify, since=since, signers=signers)
    assert caught.value.reason == Reason.SIGNATURE_INVALID
    assert "\n" not in caught.value.detail, "one line, without a stack"
    return caught.value.detail


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "openpgp-keys"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def asked(signed: str, keys: Path, *, now: datetime, data: bytes = DATA) -> str:
    """Who signed, or why nobody did."""
    believed = openpgp.read_certificates(str(keys))
    try:
        return openpgp.verify(NAME, data, signed.encode(), certificates=believed, now=now)
    except RepositoryRefused as refused:
        return refused.detail.removeprefix(f"commit {NAME} ")


@pytest.mark.parametrize("suite", [CipherSuite.Cv25519, CipherSuite.P384], ids=["ed25519", "p384"])
async def test_a_commit_signed_by_an_allowed_key_is_followed(repo: GitRepo, tmp_path: Path, suite: CipherSuite) -> None:
    ada = person("ada", suite=suite)
    name = commit(repo, ada, "a")
    # Comments and further keys stand around it, as in a file that several exports were added to.
    keys = written(tmp_path, f"# Who may sign\n{public(person('bob'))}\n# Ada\n{public(ada)}")
    assert (await read(repo, keys)).commit == name
    written(tmp_path, b"".join(bytes(each.extract_certificate()) for each in (person("bob"), ada)))
    assert (await read(repo, keys)).commit == name, "and what is not armored is read too"


async def test_everything_else_is_refused_and_names_commit_and_key(repo: GitRepo, tmp_path: Path) -> None:
    ada, bob = person("ada"), person("bob")
    keys = written(tmp_path, public(ada))
    commit(repo, None, "a")
    told = await refusal(repo, keys)
    assert f"commit {repo.head} is not signed" in told
    name = commit(repo, bob, "b")
    told = await refusal(repo, keys)
    assert f"commit {name} is signed with an OpenPGP key that is not allowed" in told
    issuer = Sig.from_bytes(signature(bob, b"").encode()).issuer_fingerprint
    assert issuer is not None
    assert issuer.upper() in told


async def test_a_commit_that_was_changed_or_has_the_signature_of_another_is_refused(repo: GitRepo, tmp_path: Path) -> None:
    ada = person("ada")
    keys = written(tmp_path, public(ada))
    commit(repo, ada, "a")
    text = repo.git("cat-file", "commit", "HEAD") + "\n"
    other = signature(ada, b"another commit")
    plain = repo.git("cat-file", "commit", commit(repo, None, "b")) + "\n"
    for forged in (text.replace("a change", "b change"), with_signature(plain, other)):
        name = put(repo, forged)
        told = await refusal(repo, keys)
        assert f"the signature of commit {name} with the OpenPGP key" in told
        assert "does not fit what it says" in told


async def test_garbage_and_giants_are_no_signatures(repo: GitRepo, tmp_path: Path) -> None:
    ada = person("ada")
    keys = written(tmp_path, public(ada))
    text = repo.git("cat-file", "commit", commit(repo, None, "a")) + "\n"
    good = signature(ada, text.encode()).strip()
    begin, end = "-----BEGIN PGP SIGNATURE-----", "-----END PGP SIGNATURE-----"
    assert good.startswith(begin)
    for made, why in (
        (f"{begin}\n\n{end}", "can't be understood"),
        (f"{begin}\n\nAAAA\n{end}", "can't be understood"),
        (good[:150], "can't be understood"),
        (str(ada.extract_certificate()).replace("PUBLIC KEY BLOCK", "SIGNATURE"), "can't be understood"),
        (f"{good}\n{'A' * MAX_SIGNATURE}", f"may have {MAX_SIGNATURE}"),
        (good.replace("SIGNATURE", "MESSAGE"), "something else than an ssh or OpenPGP key"),
        ("-----BEGIN SIGNED MESSAGE-----\nMIAG\n-----END SIGNED MESSAGE-----", "something else than an ssh or OpenPGP key"),
    ):
        name = put(repo, with_signature(text, made))
        told = await refusal(repo, keys)
        assert name in told
        assert why in told
    put(repo, with_signature(text, good))
    assert await read(repo, keys), "what they were made of is a signature"


async def test_ssh_and_openpgp_signers_work_in_one_repository(repo: GitRepo, tmp_path: Path) -> None:
    ada = person("ada")
    keys, key = written(tmp_path, public(ada)), tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    kind, text, _ = Path(f"{key}.pub").read_text().split()
    signers = tmp_path / "signers"
    signers.write_text(f"bob@example.org {kind} {text}\n")
    repo.git("config", "gpg.format", "ssh")
    repo.git("config", "user.signingkey", str(key))
    first = commit(repo, ada, "a")
    ssh = repo.commit(agents("b"), "-S")
    last = commit(repo, ada, "c")
    assert (await read(repo, keys, "all", since=first, signers=str(signers))).commit == last
    assert f"commit {ssh} is signed with an ssh key, and HANSA_GIT_ALLOWED_SIGNERS_FILE" in await refusal(repo, keys, "all", since=first)
    told = await refusal(repo, "", signers=str(signers))
    assert f"commit {last} is signed with an OpenPGP key, and HANSA_GIT_ALLOWED_OPENPGP_KEYS_FILE" in told
    smuggled = commit(repo, person("mallory"), "d")
    commit(repo, ada, "e")
    assert smuggled in await refusal(repo, keys, "all", since=last, signers=str(signers))


def test_a_key_that_has_ended_by_now_signs_nothing_whatever_date_its_signature_has(tmp_path: Path) -> None:
    ada = person("ada", seconds=3600)
    keys, now = written(tmp_path, public(ada)), clock.now()
    made = signature(ada, DATA)
    assert asked(made, keys, now=now) == "ada <ada@example.org>"
    told = asked(made, keys, now=now + timedelta(hours=2))
    assert "of ada <ada@example.org>, which ended at" in told
    assert "write the renewed one below it" in told


def test_a_renewed_key_signs_on_and_what_was_signed_before_holds_while_the_old_one_is_kept(tmp_path: Path) -> None:
    old, renewed = ((MADE / f"grace{which}.asc").read_text() for which in ("", "-renewed"))
    made, now = (MADE / "grace-signature.asc").read_text(), datetime(2040, 1, 1, tzinfo=UTC)
    assert "which ended" in asked(made, written(tmp_path, old), now=now)
    for text in (old + renewed, renewed + old):
        assert asked(made, written(tmp_path, text), now=now) == "grace <grace@example.org>"
    told = asked(made, written(tmp_path, renewed), now=now)
    assert told.startswith("was signed at 2024-02-01T")
    assert "made at 2024-04-01T00:00Z: keep the older certificate too" in told


def test_a_revoked_key_signs_nothing_also_where_it_stands_beside_its_revocation(tmp_path: Path) -> None:
    ada, bob = person("ada"), person("bob")
    made, certificate = signature(ada, DATA), ada.extract_certificate()
    revoked = Cert.from_bytes(bytes(certificate) + bytes(certificate.revoke(ada.certifier())))
    for text in (str(revoked), public(ada) + str(revoked), str(revoked) + public(bob, ada)):
        assert "which was revoked" in asked(made, written(tmp_path, text), now=clock.now())
    assert asked(made, written(tmp_path, public(ada)), now=clock.now()) == "ada <ada@example.org>"


@pytest.mark.parametrize(
    ("keys", "signed", "year", "told"),
    [
        ("grace", "grace", 2026, "grace <grace@example.org>"),
        ("heidi", "heidi", 2026, "heidi <heidi@example.org>"),
        ("grace", "grace", 2040, "which ended at 2033-12-30T"),
        ("grace-revoked", "grace", 2026, "which was revoked"),
        ("heidi", "heidi-ended", 2026, "ended at 2024-03-02T"),
        ("heidi", "heidi-sha1", 2026, "that key may not sign"),
        ("heidi", "grace", 2026, "not allowed (076F7D027B050BE37F29FE5F4D10AB3F0165C156)"),
    ],
    ids=["subkey", "rsa", "subkey-ended", "subkey-revoked", "signature-ended", "sha1", "other"],
)
def test_what_gnupg_signs_is_judged_as_gnupg_would_today(keys: str, signed: str, year: int, told: str) -> None:
    now = datetime(year, 1, 1, tzinfo=UTC)
    assert told in asked((MADE / f"{signed}-signature.asc").read_text(), MADE / f"{keys}.asc", now=now)


def test_a_key_that_is_too_old_to_be_trusted_shuts_out_nobody_else(tmp_path: Path) -> None:
    keys = written(tmp_path, "".join((MADE / f"{who}.asc").read_text() for who in ("ivan", "heidi")))
    assert "which can't be used" in asked((MADE / "ivan-signature.asc").read_text(), keys, now=clock.now())
    assert asked((MADE / "heidi-signature.asc").read_text(), keys, now=clock.now()) == "heidi <heidi@example.org>"


def test_what_gnupg_signed_is_no_signature_of_anything_else() -> None:
    signed = (MADE / "heidi-signature.asc").read_text()
    assert "does not fit what it says" in asked(signed, MADE / "heidi.asc", now=clock.now(), data=DATA + b"x")


def test_sequoia_alone_would_believe_what_has_ended() -> None:
    """Why it is looked at here: this must fail when Sequoia judges by the time of the look, and the code can be thrown away."""
    (revoked,) = Cert.split_bytes((MADE / "grace-revoked.asc").read_bytes())

    def store(_: list[str]) -> list[Cert]:
        return [revoked]

    made = Sig.from_bytes((MADE / "grace-signature.asc").read_bytes())
    assert check(bytes=DATA, store=store, signature=made).valid_sigs


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no key"),
        ("no key\n", "can't be understood"),
        ("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n", "can't be understood"),
        (lambda: str(person("ada")), "holds a private key"),
        (lambda: bytes(person("bob").extract_certificate()) + bytes(person("ada")), "holds a private key"),
    ],
    ids=["empty", "text", "broken", "private", "private, not armored"],
)
async def test_a_file_of_keys_that_says_nothing_is_told(
    repo: GitRepo, tmp_path: Path, text: str | Callable[[], str | bytes], told: str
) -> None:
    commit(repo, None, "a")
    keys = written(tmp_path, text if isinstance(text, str) else text())
    said = await refusal(repo, keys)
    assert told in said
    assert str(keys) in said


async def test_a_file_of_keys_that_is_not_there_is_told(repo: GitRepo, tmp_path: Path) -> None:
    commit(repo, None, "a")
    assert "can't be read: FileNotFoundError" in await refusal(repo, tmp_path / "gone")
    told = await refusal(repo, "")
    assert "HANSA_GIT_ALLOWED_SIGNERS_FILE" in told
    assert "HANSA_GIT_ALLOWED_OPENPGP_KEYS_FILE" in told
