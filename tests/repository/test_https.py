"""A repository behind a server: what is transferred, and what comes of a server that misbehaves. Real `git http-backend` behind it."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from doubles.git_server import GitServer, serving
from hansa.apply.repository.failures import Reason, RepositoryAway, RepositoryRefused
from hansa.apply.repository.git import GitSource, open_git
from hansa.apply.repository.https import HttpsRemote, open_http
from hansa.apply.repository.location import locate
from hansa.apply.repository.mirror import Mirror
from hansa.apply.repository.model import Tree
from hansa.apply.repository.settings import GitSettings
from hansa.errors import Invalid
from repository.repos import GitRepo, agent, agents
from server.authority import Authority

PASSWORD = "s3cr3t-token"


@asynccontextmanager
async def opened(server: GitServer, data: Path | None = None, **settings: str) -> AsyncIterator[GitSource]:
    url = f"{server.url}/upstream/.git"
    async with open_git(locate(url), GitSettings(**settings), ref="main", data=data) as source:
        yield source


async def tree_of(source: GitSource, known: Tree | None = None, since: str = "") -> Tree:
    return await source.tree(await source.look(), known=known, since=since)


async def refusal(server: GitServer, **settings: Any) -> RepositoryAway | RepositoryRefused:
    with pytest.raises((RepositoryAway, RepositoryRefused)) as caught:
        async with opened(server, **settings) as source:
            await tree_of(source)
    return caught.value


async def test_a_look_transfers_no_objects_and_a_change_transfers_what_changed(repo: GitRepo, server: GitServer, tmp_path: Path) -> None:
    repo.commit({f"agents/{number}.yaml": agent(f"a{number}", f"Be {number} times as brief as {number * 7919}.") for number in range(500)})
    async with opened(server, tmp_path / "data") as source:
        tree = await tree_of(source)
        whole = server.sent
        assert len(tree.files) == 500
        server.sent = 0
        for _ in range(3):
            assert await source.look() == tree.commit
        assert server.sent < 3 * 2000
        repo.commit({"agents/7.yaml": agent("a7", "Other.")})
        server.sent = 0
        after = await tree_of(source, tree, tree.commit)
        assert server.sent < whole / 8
        assert await source.read("agents/7.yaml", after.files["agents/7.yaml"]) == agent("a7", "Other.").encode()
        assert [path for path in after.files if after.files[path] != tree.files[path]] == ["agents/7.yaml"]


async def test_a_copy_is_kept_between_starts_and_made_anew_when_it_is_broken(repo: GitRepo, server: GitServer, tmp_path: Path) -> None:
    repo.commit(agents("a"))
    async with opened(server, tmp_path / "data") as source:
        first = await tree_of(source)
    server.sent = 0
    async with opened(server, tmp_path / "data") as source:
        assert (await tree_of(source)).files == first.files
    assert server.sent < 2000
    (copy,) = (tmp_path / "data").glob("*/copy.git")
    for pack in copy.glob("objects/pack/*"):
        pack.chmod(0o600)
        pack.write_bytes(pack.read_bytes()[: pack.stat().st_size // 2])
    repo.commit(agents("b"))
    async with opened(server, tmp_path / "data") as source:
        second = await tree_of(source)
        assert sorted(second.files) == ["agents/a.yaml", "agents/b.yaml"]
        assert await source.read("agents/a.yaml", second.files["agents/a.yaml"]) == agent("a").encode()


@pytest.mark.parametrize(
    ("file", "text", "why"),
    [
        ("config", "[core\nrepositoryformatversion = 0\n", "ValueError"),
        ("config", "[core]\nrepositoryformatversion = 7\n", "UnsupportedVersion"),
        ("config", "[core]\nrepositoryformatversion = 1\n[extensions]\nnew = true\n", "UnsupportedExtension"),
        ("shallow", "no object\n", "ObjectFormatException"),
        ("objects", None, "NotGitRepository"),
    ],
)
async def test_a_copy_that_cannot_be_opened_is_made_anew_and_the_log_says_why(
    repo: GitRepo, server: GitServer, tmp_path: Path, file: str, text: str | None, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    commit = repo.commit(agents("a"))
    async with opened(server, tmp_path / "data") as source:
        await tree_of(source)
    (copy,) = (tmp_path / "data").glob("*/copy.git")
    if text is None:
        (copy / file).rename(copy / "elsewhere")
    else:
        (copy / file).write_text(text)
    with caplog.at_level(logging.INFO, "hansa.sync"):
        async with opened(server, tmp_path / "data") as source:
            assert (await tree_of(source)).commit == commit
        assert [str(copy) in record.getMessage() and why in record.getMessage() for record in caplog.records] == [True]
        caplog.clear()
        async with opened(server, tmp_path / "data") as source:
            assert (await tree_of(source)).commit == commit
        assert not caplog.records


async def test_two_at_once_with_one_data_folder_do_not_disturb_each_other(repo: GitRepo, server: GitServer, tmp_path: Path) -> None:
    repo.commit(agents("a"))
    async with opened(server, tmp_path / "data") as one, opened(server, tmp_path / "data") as other:
        assert (await tree_of(one)).files == (await tree_of(other)).files


async def test_a_forced_push_is_followed_and_told(repo: GitRepo, server: GitServer, tmp_path: Path) -> None:
    repo.commit(agents("a"))
    async with opened(server, tmp_path / "data") as source:
        second = repo.commit(agents("b"))
        before = await tree_of(source)
        third = repo.commit(agents("c"))
        assert (await tree_of(source, before, second)).note == ""
        repo.git("reset", "--hard", "--quiet", "HEAD~1")
        repo.commit(agents("d"))
        forced = await tree_of(source, before, third)
        assert "history was rewritten" in forced.note or "not among the" in forced.note
        assert sorted(forced.files) == ["agents/a.yaml", "agents/b.yaml", "agents/d.yaml"]


async def test_credentials_come_from_a_file_and_go_to_no_other_host(repo: GitRepo, server: GitServer, tmp_path: Path) -> None:
    repo.commit(agents("a"))
    server.wanted = f"robot:{PASSWORD}"
    refused = await refusal(server)
    assert (refused.reason, "wants credentials" in refused.detail) == (Reason.DENIED, True)
    wrong = await refusal(server, username="robot", password="wrong-token")
    assert (wrong.reason, "wrong-token" in f"{wrong.detail} {wrong.hint}") == (Reason.DENIED, False)
    (tmp_path / "token").write_text(f"{PASSWORD}\n")
    async with opened(server, username="robot", password_file=str(tmp_path / "token")) as source:
        assert len((await tree_of(source)).files) == 1
    with serving(repo.folder.parent) as other:
        server.redirect = other.url
        allow = f"127.0.0.1:{other.server_port}"
        async with opened(server, username="robot", password_file=str(tmp_path / "token"), allow=allow) as source:
            assert len((await tree_of(source)).files) == 1
        assert set(server.credentials[-2:]) == {server.wanted}
        assert set(other.credentials) == {""}


async def test_a_redirect_to_a_forbidden_address_is_not_followed(repo: GitRepo, server: GitServer) -> None:
    repo.commit(agents("a"))
    with serving(repo.folder.parent, "127.0.0.2") as other:
        for target in (
            other.url,
            "http://169.254.169.254",
            "http://[fd00:ec2::254]",
            "ftp://127.0.0.1",
            "https://metadata.google.internal",
        ):
            server.redirect = target
            assert (await refusal(server)).reason in (Reason.ADDRESS_REFUSED, Reason.UNREACHABLE)
        assert other.requests == []


async def test_a_server_that_hangs_is_left_after_a_while(repo: GitRepo, server: GitServer) -> None:
    repo.commit(agents("a"))
    server.hang.set()
    location, settings = locate(f"{server.url}/upstream/.git"), GitSettings()
    with closing(Mirror(None)) as mirror:
        async with open_http(location, settings) as http:
            remote = HttpsRemote(location, settings, http, asyncio.get_running_loop(), seconds=0.5)
            with pytest.raises(RepositoryAway) as caught:
                await GitSource(location, settings, mirror, remote, asked=("main", "", "none")).look()
    failure = caught.value
    assert (failure.reason, failure.retryable) == (Reason.UNREACHABLE, True)
    assert "did not answer within 0.5 s" in failure.detail


@pytest.mark.parametrize("kept", [0, 10, 100, 300])
async def test_half_an_answer_is_no_answer_and_the_next_look_makes_it_good(
    repo: GitRepo, server: GitServer, tmp_path: Path, kept: int
) -> None:
    repo.commit(agents("a", "b"))
    async with opened(server, tmp_path / "data") as source:
        server.keep_bytes = kept
        with pytest.raises(RepositoryAway) as caught:
            await tree_of(source)
        assert caught.value.reason == Reason.UNREACHABLE
        server.keep_bytes = -1
        assert len((await tree_of(source)).files) == 2


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, Reason.GONE),
        (403, Reason.DENIED),
        (418, Reason.NOT_A_REPOSITORY),
        (429, Reason.UNREACHABLE),
        (500, Reason.UNREACHABLE),
        (503, Reason.UNREACHABLE),
    ],
)
async def test_each_refusal_of_a_server_has_its_reason(repo: GitRepo, server: GitServer, status: int, reason: Reason) -> None:
    repo.commit(agents("a"))
    server.status = status
    assert (await refusal(server)).reason == reason


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>please log in</html>",
        b"001e# service=git-upload-pack\n0000",
        b"ffff" + b"x" * 100,
        b"0000",
        b"000eversion 2\n0000",
        b"zzzz",
        b"0004" * 50,
    ],
)
async def test_what_is_not_git_is_told_and_breaks_nothing(repo: GitRepo, server: GitServer, answer: bytes) -> None:
    repo.commit(agents("a"))
    server.refs_answer = answer
    failure = await refusal(server)
    assert failure.reason in (Reason.UNREACHABLE, Reason.NOT_A_REPOSITORY, Reason.EMPTY, Reason.DAMAGED)
    assert (failure.reason == Reason.NOT_A_REPOSITORY) == ("web page" in failure.detail) == answer.startswith(b"<html>")


async def test_a_commit_that_the_server_has_not_is_asked_about(repo: GitRepo, server: GitServer) -> None:
    repo.commit(agents("a"))
    missing = "0" * 39 + "1"
    with pytest.raises(RepositoryAway) as caught:
        async with open_git(locate(f"{server.url}/upstream/.git"), GitSettings(), ref=missing) as source:
            await tree_of(source)
    assert caught.value.hint == f"Is {missing} a commit of it?"


async def test_a_certificate_of_nobody_we_trust_is_told_with_what_to_set(repo: GitRepo, server: GitServer, tmp_path: Path) -> None:
    repo.commit(agents("a"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*Authority(tmp_path).issue("server"))
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    with pytest.raises(RepositoryAway) as caught:
        async with open_git(locate(f"{server.url.replace('http', 'https')}/upstream/.git"), GitSettings()) as source:
            await source.look()
    assert "HANSA_GIT_CA_FILE" in caught.value.hint


async def test_an_empty_repository_and_a_missing_branch_are_told_apart(repo: GitRepo, server: GitServer) -> None:
    assert (await refusal(server)).reason == Reason.EMPTY
    repo.commit(agents("a"))
    repo.git("branch", "--move", "main", "trunk")
    assert (await refusal(server)).reason == Reason.REF_MISSING


async def test_plain_http_is_refused_unless_it_stays_on_this_machine_or_is_listed() -> None:
    location = locate("http://git.example.org/agents.git")
    with pytest.raises(Invalid, match="plain http"):
        open_http(location, GitSettings())
    async with open_http(location, GitSettings(allow="git.example.org")):
        pass
