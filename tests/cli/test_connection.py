"""Where the API is and with which key: who decides, what was tried, and to whom a key is never sent."""

import json
from pathlib import Path

import pytest

from hansa.cli.connection import Connection, find
from hansa.errors import Misconfigured, Unauthenticated, Unavailable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "api-key").write_text("key-of-the-folder\n")
    ready = {"url": "http://127.0.0.1:1", "api_key_file": str(tmp_path / "api-key"), "postgres": "", "nats": "", "new": 1}
    (tmp_path / "ready.json").write_text(json.dumps(ready))
    return tmp_path


def test_a_local_stack_is_found_by_its_data_folder(folder: Path) -> None:
    for connection, environ in ((Connection(data=str(folder)), {}), (Connection(), {"HANSA_DATA_DIR": str(folder)})):
        target = find(connection, environ)
        assert (target.url, target.key) == ("http://127.0.0.1:1", "key-of-the-folder")
        assert target.url_source == str(folder / "ready.json")


def test_a_flag_wins_over_the_environment_and_that_over_the_folder(folder: Path, tmp_path: Path) -> None:
    flag_key, env_key = tmp_path / "flag", tmp_path / "env"
    flag_key.write_text("key-of-the-flag")
    env_key.write_text("key-of-the-environment")
    environ = {"HANSA_URL": "http://env", "HANSA_API_KEY_FILE": str(env_key), "HANSA_DATA_DIR": str(folder)}
    assert (find(Connection(), environ).url, find(Connection(), environ).key) == ("http://env", "key-of-the-environment")
    assert find(Connection(), {**environ, "HANSA_API_KEY": "direct"}).key == "direct"
    by_flag = find(Connection(url="http://flag", api_key_file=str(flag_key)), {**environ, "HANSA_API_KEY": "direct"})
    assert (by_flag.url, by_flag.key, by_flag.url_source) == ("http://flag", "key-of-the-flag", "--url")


def test_the_key_of_a_folder_is_never_sent_to_another_server(folder: Path) -> None:
    with pytest.raises(Unauthenticated, match=r"no API key for http://elsewhere.example"):
        find(Connection(url="http://elsewhere.example", data=str(folder)), {})
    assert find(Connection(url="http://127.0.0.1:1", data=str(folder)), {}).key == "key-of-the-folder"


def test_no_server_at_all_names_all_that_was_tried(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        find(Connection(data=str(tmp_path)), {})
    for tried in ("--url", "HANSA_URL", str(tmp_path / "ready.json")):
        assert tried in caught.value.detail
    assert "hansa up" in caught.value.hint
    assert caught.value.exit_code == 69


def test_a_damaged_ready_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "ready.json").write_text('{"url": 7')
    with pytest.raises(Misconfigured, match=r"ready\.json can't be read"):
        find(Connection(data=str(tmp_path)), {})


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"\xff\xfe", "schlüssel".encode()])
def test_a_key_file_without_a_key_is_named_and_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(Unauthenticated) as caught:
        find(Connection(url="http://x", api_key_file=str(path)), {})
    assert str(path) in caught.value.detail
    assert "lines" not in caught.value.detail


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated, match="No such file"):
        find(Connection(url="http://x", api_key_file=str(tmp_path / "none")), {})


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://127.0.0.1:1/", "http://127.0.0.1:1//"])
def test_a_slash_at_the_end_of_an_address_makes_no_other_server(folder: Path, url: str) -> None:
    for target in (find(Connection(url=url, data=str(folder)), {}), find(Connection(data=str(folder)), {"HANSA_URL": url})):
        assert (target.url, target.key) == ("http://127.0.0.1:1", "key-of-the-folder")


@pytest.mark.parametrize("key", ["secret\nwords", "secret words", "secret\x7f", "sécret", "  \n"])
def test_a_key_in_the_environment_that_is_none_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        find(Connection(url="http://x"), {"HANSA_API_KEY": key})
    assert "HANSA_API_KEY holds no key" in caught.value.detail
    for piece in ("secret", "words", "cret"):
        assert piece not in caught.value.detail + caught.value.hint
