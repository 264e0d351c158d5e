"""How databases of tenants are named: every mistake is told with its place, and nothing that a URL holds is told."""

from pathlib import Path

import pytest

from hansa.auth import keys
from hansa.db.dedicated import read_dedicated
from hansa.dev.dedicated import keep_dedicated
from hansa.dev.environment import Places, for_migrate, for_processes
from hansa.dev.folder import DataFolder
from hansa.errors import Misconfigured

URL = "postgresql://hansa_app:hidden@host/name"
BOTH = f'app_url = "{URL}"\nsystem_url = "{URL}"\n'


def test_no_file_names_none() -> None:
    assert read_dedicated("") == {}


def test_a_file_names_databases_by_tenant(tmp_path: Path) -> None:
    file = tmp_path / "dedicated.toml"
    file.write_text(f"[acme]\n{BOTH}[bank]\n{BOTH}url = '{URL}'\n")
    found = read_dedicated(str(file))
    assert {name: bool(urls.url) for name, urls in found.items()} == {"acme": False, "bank": True}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("acme = 1", "acme: Expected `object`"),
        ("[acme]\napp_url = 'x'", "acme: Object missing required field `system_url`"),
        (f"[acme]\n{BOTH}password = 'hidden'", "acme: Object contains unknown field `password`"),
        (f"[Acme]\n{BOTH}", "Acme: is no name that a tenant can have"),
        (f"[default]\n{BOTH}", "default: the tenant `default` is the installation's own"),
        ("[acme]\napp_url = 'hidden'\nsystem_url = 'mysql://hidden'", "acme.system_url: is no URL like postgresql://"),
        ("[acme\n", "is no TOML file"),
    ],
    ids=["no-table", "missing", "unknown", "name", "default", "url", "toml"],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "dedicated.toml"
    file.write_text(text)
    with pytest.raises(Misconfigured) as refused:
        read_dedicated(str(file))
    assert told in str(refused.value)
    assert "hidden" not in str(refused.value)


def test_a_file_that_is_not_there_is_told() -> None:
    with pytest.raises(Misconfigured, match="HANSA_DATABASE_DEDICATED_FILE /nowhere can't be read"):
        read_dedicated("/nowhere")


def test_keys_of_a_tenants_own_database_begin_alike() -> None:
    assert keys.mark_of("") == ""
    assert keys.mark_of("acme") != keys.mark_of("bank")
    text, key_id, _ = keys.make("live", mark=keys.mark_of("acme"))
    assert key_id.startswith(keys.mark_of("acme"))
    assert keys.parse(text).id == key_id


async def test_up_keeps_what_it_was_told_and_tells_the_admins_urls_to_migrate_alone(tmp_path: Path) -> None:
    async with DataFolder(tmp_path / "data") as folder:
        places = Places(folder, "postgresql://postgres:hidden@127.0.0.1:5432/hansa", "nats://127.0.0.1:4222")
        assert keep_dedicated(places, ()) == ("", "")
        first = keep_dedicated(places, ["bank"])
        assert keep_dedicated(places, ["acme"]) == first
        known, admin = (read_dedicated(path) for path in first)
        assert known.keys() == admin.keys() == {"acme", "bank"}
        assert all(urls.url.endswith(f"@127.0.0.1:5432/hansa-{name}") for name, urls in admin.items())
        assert not any(urls.url for urls in known.values())
        for path in first:
            assert Path(path).stat().st_mode & 0o777 == 0o600
        with pytest.raises(Misconfigured, match="--dedicated Bad"):
            keep_dedicated(places, ["Bad"])
        told = Places(folder, places.database, places.nats, dedicated_files=first)
        assert for_processes({}, told)["HANSA_DATABASE_DEDICATED_FILE"] == first[0]
        assert for_migrate({}, told)["HANSA_DATABASE_DEDICATED_FILE"] == first[1]
        assert "hidden" not in Path(first[0]).read_text()
