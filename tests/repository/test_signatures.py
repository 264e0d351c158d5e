"""Signed commits: real keys, real signatures by `ssh-keygen`, and everything that is not one."""

import subprocess
from pathlib import Path

import pytest

from hansa.apply.repository.failures import Reason, RepositoryRefused
from hansa.apply.repository.git import open_git
from hansa.apply.repository.location import locate
from hansa.apply.repository.model import Tree, Verify
from hansa.apply.repository.settings import GitSettings
from repository.repos import GitRepo, agents


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three keys: `known` and `other` of a kind that is understood, `curve` of one that is not."""
    folder = tmp_path_factory.mktemp("keys")
    for name, kind in (("known", "ed25519"), ("other", "ed25519"), ("rsa", "rsa"), ("curve", "ecdsa")):
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(folder / name)], check=True)
    return folder


@pytest.fixture
def signed(repo: GitRepo, keys: Path) -> GitRepo:
    """A repository whose commits are signed by `known` when asked for with -S."""
    repo.git("config", "gpg.format", "ssh")
    repo.git("config", "user.signingkey", str(keys / "known"))
    repo.commit(agents("a"), "-S")
    return repo


def line(keys: Path, name: str, *, options: str = "", who: str = "a@example.org") -> str:
    kind, key, _ = (keys / f"{name}.pub").read_text().split()
    return f"{who} {options} {kind} {key}\n" if options else f"{who} {kind} {key}\n"


async def read(repo: GitRepo, signers: Path | None, verify: Verify = "head", since: str = "") -> Tree:
    settings = GitSettings(allowed_signers_file=str(signers) if signers else "")
    async with open_git(locate(str(repo.folder)), settings, ref="main", verify=verify) as source:
        return await source.tree(await source.look(), since=since)


async def refusal(repo: GitRepo, signers: Path | None, verify: Verify = "head", since: str = "") -> str:
    with pytest.raises(RepositoryRefused) as caught:
        await read(repo, signers, verify, since)
    assert caught.value.reason == Reason.SIGNATURE_INVALID
    return caught.value.detail


@pytest.mark.parametrize("name", ["known", "rsa"])
async def test_a_commit_signed_by_an_allowed_key_is_followed(signed: GitRepo, keys: Path, tmp_path: Path, name: str) -> None:
    signed.git("config", "user.signingkey", str(keys / name))
    commit = signed.commit(agents("b"), "-S")
    signers = tmp_path / "signers"
    signers.write_text("# comment\n\n" + line(keys, "curve") + line(keys, name, options='namespaces="git"'))
    assert (await read(signed, signers)).commit == commit


async def test_everything_else_is_refused_and_names_the_commit(signed: GitRepo, keys: Path, tmp_path: Path) -> None:
    signers = tmp_path / "signers"
    commit = signed.head
    for text, why in (
        (line(keys, "other"), "not allowed"),
        (line(keys, "known", options='namespaces="file"') + line(keys, "other"), "not allowed"),
        (line(keys, "known", options="cert-authority") + line(keys, "other"), "not allowed"),
        (line(keys, "known", options='valid-before="20200101Z"'), "not valid now"),
        (line(keys, "known", options='valid-after="29990101"'), "not valid now"),
    ):
        signers.write_text(text)
        told = await refusal(signed, signers)
        assert commit in told
        assert why in told
    for text in ("", "# nothing\n", "no line\n", line(keys, "curve"), "a@example.org ssh-ed25519 AAAA\n", '"a ssh-ed25519\n'):
        signers.write_text(text)
        assert "allowed signers file" in await refusal(signed, signers)
    assert "names no file" in await refusal(signed, None)
    assert "can't be read" in await refusal(signed, tmp_path / "gone")


async def test_an_unsigned_commit_is_refused_and_one_with_a_foreign_kind_of_key_too(signed: GitRepo, keys: Path, tmp_path: Path) -> None:
    signers = tmp_path / "signers"
    signers.write_text(line(keys, "known") + line(keys, "curve"))
    commit = signed.commit(agents("b"))
    assert f"commit {commit} is not signed" in await refusal(signed, signers)
    signed.git("config", "user.signingkey", str(keys / "curve"))
    commit = signed.commit(agents("c"), "-S")
    assert commit in await refusal(signed, signers)


async def test_a_signature_of_another_commit_is_refused(signed: GitRepo, keys: Path, tmp_path: Path) -> None:
    signers = tmp_path / "signers"
    signers.write_text(line(keys, "known"))
    text = signed.git("cat-file", "commit", "HEAD")
    for forged in (
        text.replace("a change", "b change"),
        text.replace("BEGIN SSH SIGNATURE", "BEGIN PGP SIGNATURE").replace("END SSH SIGNATURE", "END PGP SIGNATURE"),
        "\n".join(each[:20] if each.startswith(" U1NIU0lH") else each for each in text.splitlines()) + "\n",
    ):
        made = subprocess.run(
            ["git", "hash-object", "-t", "commit", "-w", "--stdin"],
            cwd=signed.folder,
            input=forged + "\n",
            capture_output=True,
            text=True,
            check=True,
        )
        signed.git("update-ref", "refs/heads/main", made.stdout.strip())
        assert made.stdout.strip() in await refusal(signed, signers)


async def test_with_all_each_commit_since_the_one_applied_last_must_be_signed(signed: GitRepo, keys: Path, tmp_path: Path) -> None:
    signers = tmp_path / "signers"
    signers.write_text(line(keys, "known"))
    before = signed.head
    smuggled = signed.commit(agents("b"))
    signed.commit(agents("c"), "-S")
    assert (await read(signed, signers, "head", before)).commit == signed.head
    assert smuggled in await refusal(signed, signers, "all", before)
    assert (await read(signed, signers, "all", smuggled)).commit == signed.head
    # What was applied last is in no history any more: then all of this one must be signed.
    assert smuggled in await refusal(signed, signers, "all", "f" * 40)
