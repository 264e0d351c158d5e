"""URLs of repositories: taken apart, shown without anything secret, refused when they hold it."""

import pytest

from hansa.apply.repository.location import checked_path, checked_ref, locate, origin_of
from hansa.errors import Invalid

SECRET = "s3cr3t-token"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://git.example.org/team/agents.git", "https://git.example.org/team/agents.git"),
        ("https://git.example.org:8443/team/agents.git/", "https://git.example.org:8443/team/agents.git"),
        ("ssh://git@git.example.org/team/agents.git", "ssh://git.example.org/team/agents.git"),
        ("ssh://git@git.example.org:2222/~/agents", "ssh://git.example.org:2222/~/agents"),
        ("git@git.example.org:team/agents.git", "ssh://git.example.org/~/team/agents.git"),
        ("file:///srv/agents", "file:///srv/agents"),
        ("https://[::1]:8443/agents", "https://[::1]:8443/agents"),
    ],
)
def test_a_repository_is_known_by_its_url_without_user_and_password(text: str, shown: str) -> None:
    assert locate(text).shown == shown
    assert origin_of(locate(text), "tenants") == f"{shown}//tenants"


@pytest.mark.parametrize(
    "text",
    [
        f"https://user:{SECRET}@git.example.org/team/agents.git",
        f"https://{SECRET}@git.example.org/team/agents.git",
        f"ssh://git:{SECRET}@git.example.org/team/agents.git",
        f"https://git.example.org/agents?token={SECRET}",
    ],
)
def test_a_url_with_a_credential_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        locate(text)
    assert SECRET not in caught.value.detail + caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://",
        "https://git.example.org/",
        "ftp://git.example.org/a",
        "ssh://-oProxyCommand=touch/x",
        "ssh://git@host/-upload-pack",
        "ssh://a b@host/x",
        "file://other/srv",
        "https://git.example.org/a\nb",
        "https://git.example.org:99999/a",
    ],
)
def test_what_is_no_url_of_a_repository_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        locate(text)


@pytest.mark.parametrize("ref", ["-x", "a..b", "a//b", "main@{1}", "a.lock", "a b", "a\nb", "~1", "refs/heads/"])
def test_what_is_no_ref_is_refused(ref: str) -> None:
    with pytest.raises(Invalid):
        checked_ref(ref)


def test_refs_and_paths_are_taken_as_people_write_them() -> None:
    assert [checked_ref(ref) for ref in ("", "main", "release/1.2", "v1.0", "refs/tags/v1")] == [
        "",
        "main",
        "release/1.2",
        "v1.0",
        "refs/tags/v1",
    ]
    assert checked_path("/tenants//acme/./") == "tenants/acme"
    with pytest.raises(Invalid):
        checked_path("../etc")
