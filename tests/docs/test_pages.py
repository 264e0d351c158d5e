"""Every command of the documentation is typed by a test, against the whole platform on its real model."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import forkserver
from docs.pages import CLUSTERED, DEPLOYED, OPERATED, Step, steps
from doubles.oidc_provider import OidcProvider, oidc_provider
from stack import free_port

ROOT = Path(__file__).parents[2]
ELSEWHERE = CLUSTERED | DEPLOYED | OPERATED
PAGES = [ROOT / "README.md", *(each for each in sorted((ROOT / "docs").glob("*.md")) if each.stem not in ELSEWHERE)]
FIRST = """python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["id"])'"""
NEWEST = f"$(hansa runs --output json | {FIRST})"
OPEN = f"hansa approvals --state pending --output json | {FIRST} 2> /dev/null"
PENDING = f"$(for _ in $(seq 60); do {OPEN} && break; sleep 0.5; done)"
UP, DOWN = "hansa up --data .hansa --detach", "hansa down --data .hansa"
SET_UP = ("make run", "make test", "make check", "make setup", "make generate", "make bench")


ISSUER = "https://id.acme.example"


@pytest.fixture(scope="module")
def provider() -> Iterator[OidcProvider]:
    """What stands at the address of the provider that pages speak of."""
    with oidc_provider(free_port()) as found:
        yield found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, provider: OidcProvider) -> Iterator[Path]:
    """A copy of what a page's commands need of a clone, with a stack of its own running in it."""
    place = tmp_path_factory.mktemp("clone")
    subprocess.run(["cp", "-a", str(ROOT / "gitops"), str(ROOT / "docs"), str(place)], check=True)
    (place / ".venv").symlink_to(ROOT / ".venv")
    # With leases so short that a page on killed workers is read in time, and checkpoints so soon that one is there.
    quick = "HANSA_WORKER_LEASE_SECONDS=6 HANSA_WORKER_RENEW_SECONDS=1 HANSA_AUDIT_SEAL_SECONDS=2"
    gpg = place / "programs/gpg"
    gpg.parent.mkdir()
    gpg.write_text(f'#!/bin/sh\nexec {ROOT / ".venv/bin/python"} {ROOT / "tests/doubles/gpg.py"} "$@"\n')
    gpg.chmod(0o755)
    (place / "issuers").write_text(provider.url.removeprefix("http://"))
    typed(place, f"{quick} hansa up --data .hansa --port 0 --detach && hansa apply -f gitops/tenants/default")
    yield place
    typed(place, "hansa down --data .hansa")


def environ(place: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HANSA_", "XDG_"))}
    # The browser in which a person approves, as Ada of the crew.
    kept["BROWSER"] = "curl -sfo /dev/null %s&user=ada&groups=crew"
    kept["GNUPGHOME"] = str(place / "gnupg")
    kept["OMP_NUM_THREADS"] = "1"  # for the small model: two are quicker, and cost half as much again
    # `hansa` is forked: pages type it some hundred times, and its imports would take most of their time.
    path = f"{forkserver.shared().folder}:{place / 'programs'}:{ROOT / '.venv/bin'}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "NO_COLOR": "1"}


def typed(place: Path, commands: str) -> str:
    """What a shell answers to commands; fails when one of them does."""
    shell = ["bash", "-euo", "pipefail", "-c", commands]
    issuers = (place / "issuers").read_text()  # also where a page stops everything and starts it again
    env = environ(place) | {"HANSA_LOGINS_FILE": str(place / "logins.json"), "HANSA_EGRESS_ISSUERS_ALLOW": issuers}
    done = subprocess.run(shell, cwd=place, env=env, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, f"{commands}\nended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def runnable(step: Step) -> str:
    """The commands of a step as they can be typed here: set-up has been done, RUN is the newest run, APPROVAL the newest that is open.

    The stack is up already and stays up, but for commands that stop it and start it again.
    """
    text = "\n".join(line for line in step.text.splitlines() if not line.startswith(SET_UP))
    if DOWN in text and text.find(UP) > text.index(DOWN):
        text = text.replace(UP, f"{UP} --port 0")
    else:
        text = text.replace(UP, "hansa status").replace(DOWN, "hansa status")
    return re.sub(r"\bAPPROVAL\b", lambda _: PENDING, re.sub(r"\bRUN\b", lambda _: NEWEST, text))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_do_what_it_says(page: Path, place: Path, provider: OidcProvider) -> None:
    for step in steps(page):
        if step.file is not None:
            (place / step.file).write_text(step.text)
        else:
            typed(place, runnable(step).replace(ISSUER, provider.url))


def test_a_command_that_fails_is_seen(place: Path) -> None:
    with pytest.raises(AssertionError, match="there is no agent"):
        typed(place, "hansa run nobody-of-this-name hello")


def test_a_page_that_restarts_everything_really_does() -> None:
    assert runnable(Step(f"{DOWN}\n{UP}")) == f"{DOWN}\n{UP} --port 0"
    assert runnable(Step(f"{UP}\n{DOWN}")) == "hansa status\nhansa status"


def test_the_pages_have_commands() -> None:
    assert sum(len(steps(page)) for page in PAGES) >= 20
