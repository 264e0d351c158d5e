"""`hansa login`: a person comes in with an account at a provider, for as long as that renews it, and leaves nothing behind."""

import json
import re
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from cli.command import Ended, hansa, start
from doubles.oidc_provider import OidcProvider
from hansa.cli import provider as provider_module
from hansa.errors import Invalid, Unavailable
from identity.place import Town, issuer, tenant
from stack import Process, Stack, free_port

CLIENT = "hansa-cli"


class Person:
    """Someone at a command line without a key, and with a browser that approves as they say."""

    def __init__(self, town: Town, doorway: Process, place: Path) -> None:
        self._town = town
        self._url = doorway.url
        self.place = place
        self.file = place / "logins.json"

    def env(self, url: str = "") -> dict[str, str]:
        return {"HANSA_URL": url or self._url, "HANSA_API_KEY": "", "HANSA_LOGINS_FILE": str(self.file)}

    def types(self, *arguments: str, **env: str) -> Ended:
        return hansa(*arguments, cwd=self.place, **{**self.env(), **env})

    def logs_in(self, *, say: str = "approved", groups: str = "crew", **env: str) -> Ended:
        """Log in, as the provider's page is told it."""
        child = start("login", "--issuer", self._town.provider.url, "--client-id", CLIENT, cwd=self.place, **{**self.env(), **env})
        assert child.stderr is not None
        line = child.stderr.readline()
        code = re.search(r"enter the code (\w+)", line)
        assert code is not None, line
        self._town.provider.activate(code[1], say=say, groups=groups)
        out, err = child.communicate(timeout=60)
        return Ended(child.returncode, out, line + err)

    @property
    def login(self) -> dict[str, Any]:
        return json.loads(self.file.read_text())[self._url]

    def changes(self, **fields: Any) -> None:
        self.file.write_text(json.dumps({self._url: {**self.login, **fields}}))


@pytest.fixture
async def harbour(town: Town) -> None:
    """The provider's own audience, `hansa`, is that of a tenant, in which the crew may operate."""
    crew = {"roles": ["operator"], "groups": ["corp:crew"]}
    (found,) = await town.apply(tenant("harbour", issuer(town.provider, "hansa"), bindings=[crew]))
    assert found["action"] != "failed", found


@pytest.fixture
def person(town: Town, doorway: Process, harbour: None, tmp_path: Path) -> Person:
    return Person(town, doorway, tmp_path)


def test_a_person_logs_in_works_and_logs_out(person: Person, shared_provider: OidcProvider) -> None:
    assert person.types("auth").status == 77
    ended = person.logs_in()
    assert (ended.status, ended.out.split(" as ")[1]) == (0, "user:corp:ada in tenant harbour, roles: operator\n")
    assert stat.S_IMODE(person.file.stat().st_mode) == 0o600
    for secret in (person.login["access_token"], person.login["refresh_token"]):
        assert secret not in ended.out + ended.err
    assert person.types("auth", "can-i", "runs:start").out == "yes\n"
    open_before = shared_provider.facts()["open"]
    assert "logged out" in person.types("logout").err
    assert shared_provider.facts()["open"] == open_before - 1
    assert person.types("auth").status == 77
    assert "nobody is logged in" in person.types("logout").err
    assert "token" not in person.file.read_text()


def test_a_token_is_renewed_before_it_ends_by_one_of_many(person: Person, shared_provider: OidcProvider) -> None:
    person.logs_in()
    before = shared_provider.facts()["refreshes"]
    person.changes(expires_at=time.time() + 10, access_token="old")
    commands = [start("auth", cwd=person.place, **person.env()) for _ in range(3)]
    for each in commands:
        out, err = each.communicate(timeout=60)
        assert (each.returncode, "user:corp:ada" in out) == (0, True), err
    assert shared_provider.facts()["refreshes"] == before + 1
    assert person.login["expires_at"] > time.time() + 60


def test_a_login_that_its_provider_has_ended_says_so(person: Person) -> None:
    person.logs_in()
    person.changes(expires_at=0, refresh_token="used before")
    ended = person.types("auth")
    assert (ended.status, "hansa login" in ended.err) == (77, True)
    person.changes(expires_at=0, refresh_token="")
    assert "has ended" in person.types("auth").err


def test_one_without_a_role_is_told_so(person: Person) -> None:
    ended = person.logs_in(groups="")
    assert (ended.status, "no role there yet" in ended.err) == (0, True)


def test_a_refusal_in_the_browser_is_one(person: Person) -> None:
    ended = person.logs_in(say="denied")
    assert (ended.status, "refused in the browser" in ended.err) == (77, True)
    assert not person.file.exists()


def test_a_key_in_the_environment_goes_before_the_login_and_it_is_said(person: Person, stack: Stack) -> None:
    ended = person.logs_in(HANSA_API_KEY=stack.key)
    assert (ended.status, "HANSA_API_KEY" in ended.err) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("login",), 2, "--issuer"),
        (("login", "--issuer", "http://id.acme.example", "--client-id", "x"), 65, "https://"),
        (("login", "--issuer", "ftp://id.acme.example", "--client-id", "x"), 65, "https://"),
    ],
)
def test_what_can_not_be_is_told(person: Person, arguments: tuple[str, ...], status: int, said: str) -> None:
    ended = person.types(*arguments)
    assert (ended.status, said in ended.err) == (status, True), ended.err


def test_a_client_that_the_provider_does_not_know_is_told(person: Person, shared_provider: OidcProvider) -> None:
    ended = person.types("login", "--issuer", shared_provider.url, "--client-id", "stranger")
    assert (ended.status, "there is no such client" in ended.err) == (65, True)


def test_who_says_to_be_another_provider_is_not_believed(provider: OidcProvider) -> None:
    provider.control(mode="impostor")
    with pytest.raises(Invalid, match="says that it is"):
        provider_module.discover(provider.url)


def test_a_provider_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        provider_module.discover(f"http://127.0.0.1:{free_port()}")


def test_it_is_asked_less_often_when_it_wants_that(provider: OidcProvider) -> None:
    at = provider_module.discover(provider.url)
    device = provider_module.begin(at, CLIENT, scope="openid", audience="")
    paused: list[float] = []

    def pause(seconds: float) -> None:
        paused.append(seconds)
        provider.control(mode={1: "down", 2: "ok", 3: "slow_down"}.get(len(paused), "ok"))
        if len(paused) == 4:
            provider.activate(device.user_code)

    tokens = provider_module.wait(at, CLIENT, device, pause=pause)
    assert tokens.access_token
    assert paused == [0.2, 0.4, 0.4, 5.4]
