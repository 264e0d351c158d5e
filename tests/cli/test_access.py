"""`hansa auth`, `hansa keys`, `hansa tenants` and `--tenant`, against a real platform."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.command import Ended, hansa
from hansa import ids
from isolation.neighbours import build
from stack import Process, Stack


class Person:
    """Someone at a command line with a key."""

    def __init__(self, control_plane: Process, key: str, place: Path) -> None:
        self._env = {"HANSA_URL": control_plane.url, "HANSA_API_KEY": key}
        self.place = place

    def types(self, *arguments: str, **env: str) -> Ended:
        return hansa(*arguments, cwd=self.place, **self._env, **env)

    def sees(self, *arguments: str) -> Any:
        ended = self.types(*arguments, "--output", "json")
        assert ended.status == 0, ended.err
        return json.loads(ended.out)

    def with_key(self, control_plane: Process, key: str) -> "Person":
        return Person(control_plane, key, self.place)


@pytest.fixture
def admin(stack: Stack, control_plane: Process, shared_worker: Process, tmp_path: Path) -> Person:
    assert shared_worker.alive
    return Person(control_plane, stack.key, tmp_path)


def test_the_text_of_a_new_key_alone_is_on_stdout_and_works(admin: Person, control_plane: Process) -> None:
    made = admin.types("keys", "create", "of a script", "--role", "operator", "--scope", "runs:read", "--scope", "self:read")
    assert (made.status, made.out.count("\n")) == (0, 1)
    key = made.out.strip()
    assert key not in made.err
    holder = admin.with_key(control_plane, key)
    assert holder.types("auth", "can-i", "runs:read").out == "yes\n"
    refused = holder.types("auth", "can-i", "runs:start")
    assert (refused.status, refused.out) == (1, "no\n")
    found = holder.sees("auth", "whoami")
    assert (found["tenant"], found["permissions"]) == ("default", ["runs:read", "self:read"])
    assert f"{found['name']} in tenant default, roles: operator\n  runs:read\n  self:read\n" == holder.types("auth").out
    assert holder.types("keys").status == 77


def test_a_service_account_is_made_with_a_key_and_deleted_with_it(admin: Person, control_plane: Process) -> None:
    name = f"ci-{ids.new_id().hex[-8:]}"
    assert admin.types("service-accounts", "create", name, "--role", "operator", "--description", "builds").status == 0
    holder = admin.with_key(control_plane, admin.sees("keys", "create", "k", "--service-account", name)["key"])
    assert holder.sees("auth", "whoami")["name"] == f"service:{name}"
    assert name in admin.types("service-accounts").out
    for permission, said, status in (("runs:start", "yes\n", 0), ("keys:write", "no\n", 1)):
        ended = admin.types("auth", "can-i", permission, "--as", f"service:{name}")
        assert (ended.out, ended.status) == (said, status)
    refused = holder.types("auth", "can-i", "runs:start", "--as", f"service:{name}")
    assert (refused.status, "access:read" in refused.err) == (77, True)
    assert admin.types("service-accounts", "delete", name).status == 0
    assert holder.types("auth").status == 77


def test_what_one_may_in_a_namespace_is_said_with_the_namespace(admin: Person, control_plane: Process, stack: Stack) -> None:
    house = asyncio.run(build(stack, control_plane, roles=["developer"]))
    text = house.bound["developer@west"]["authorization"].split()[1]
    west = admin.with_key(control_plane, text)
    for arguments, said, status in (
        (("runs:start",), f"no, only in {house.west}\n", 1),
        (("runs:start", "--namespace", house.west), "yes\n", 0),
        (("runs:start", "--namespace", house.east), f"no, only in {house.west}\n", 1),
        (("secrets:write", "--namespace", house.west), "no\n", 1),
    ):
        ended = west.types("auth", "can-i", *arguments)
        assert (ended.out, ended.status) == (said, status), ended
        asked = admin.types("auth", "can-i", *arguments, "--as", "service:developer-west", "--tenant", house.name)
        assert (asked.out, asked.status) == (said, status), asked
    assert f"in namespace {house.west}, roles: developer\n  agents:read\n" in west.types("auth").out
    found = west.sees("auth", "whoami")
    assert (found["roles"], [each["namespace"] for each in found["namespaces"]]) == ([], [house.west])
    shown = admin.types("service-accounts", "--tenant", house.name).out
    assert f"developer@{house.west}" in shown
    refused = west.types("secrets")
    assert (refused.status, f"developer@{house.west}" in refused.err) == (77, True)


def test_a_key_is_rotated_and_revoked(admin: Person, control_plane: Process) -> None:
    old = admin.sees("keys", "create", "rotated", "--role", "viewer", "--expires", "2999-01-01T00:00Z")
    new = admin.sees("keys", "rotate", old["id"], "--grace", "0.5")
    for made in (old, new):
        assert admin.with_key(control_plane, made["key"]).sees("auth", "whoami")["name"] == f"key:{made['id']}"
    ended = admin.types("keys", "revoke", old["id"])
    assert (ended.status, ended.err) == (0, f"key {old['id']} revoked\n")
    refused = admin.with_key(control_plane, old["key"]).types("auth")
    assert (refused.status, "revoked" in refused.err) == (77, True)
    listed = {each["id"]: each for each in admin.sees("keys")}
    assert (listed[old["id"]]["revoked_at"] is None, listed[new["id"]]["revoked_at"]) == (False, None)
    table = admin.types("keys", "list").out
    assert old["id"] in table
    assert old["key"] not in table
    assert new["key"] not in table


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("keys", "create", "x"), 2, "--role"),
        (("keys", "create", "x", "--role", "king"), 65, "there is no role 'king'"),
        (("keys", "create", "x", "--role", "viewer", "--expires", "soon"), 2, "--expires is no time"),
        (("keys", "create", "x", "--role", "viewer", "--expires", "2001-01-01T00:00Z"), 65, "in the past"),
        (("keys", "rotate", "nothing"), 66, "no API key 'nothing'"),
        (("keys", "rotate", "nothing", "--grace", "1000"), 2, "720"),
        (("keys", "revoke", ""), 2, "is no name"),
        (("runs", "--tenant", "not there"), 65, "is no name of a tenant"),
        (("runs", "--tenant", "atlantis"), 66, "no tenant 'atlantis'"),
    ],
)
def test_what_can_not_be_is_told(admin: Person, arguments: tuple[str, ...], status: int, said: str) -> None:
    ended = admin.types(*arguments)
    assert (ended.status, ended.out) == (status, "")
    assert said in ended.err


def test_a_tenant_is_made_from_files_and_worked_in(admin: Person) -> None:
    name = f"c-{ids.new_id().hex[-8:]}"
    documents = [
        {
            "apiVersion": "hansa.dev/v1alpha1",
            "kind": "Agent",
            "metadata": {"name": "greeter", "namespace": name},
            "spec": {"instructions": "Greet.", "model": {"ref": "scripted/echo"}},
        },
        {
            "apiVersion": "hansa.dev/v1alpha1",
            "kind": "ModelProvider",
            "metadata": {"name": "scripted", "namespace": name},
            "spec": {"plugin": "scripted", "models": [{"name": "echo"}]},
        },
        {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": {"displayName": "Acme"}},
    ]
    (admin.place / "all.yaml").write_text(yaml.safe_dump_all(documents))
    applied = admin.types("apply", "all.yaml")
    assert applied.out.splitlines() == [
        f"tenant/{name} created in tenant {name}",
        f"modelprovider/scripted created in tenant {name}",
        f"agent/greeter created in tenant {name}",
    ]
    (shown,) = (each for each in admin.sees("tenants") if each["name"] == name)
    assert shown["display_name"] == "Acme"
    assert admin.types("run", "greeter", "hello", "--tenant", name).out.endswith("hello\n")
    assert len(admin.sees("runs", "--agent", "greeter", "--tenant", name)) == 1
    by_variable = admin.types("runs", "--agent", "greeter", HANSA_TENANT=name)
    assert "greeter" in by_variable.out
    assert admin.types("get", "agent", "greeter").status == 66
