"""The trail over REST and on the command line: filtered, paged, exported, verified."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import msgspec
import pytest

from api.keys import Keys
from api.problem import problem
from audit.places import SIGNER, keeper, outside
from cli.command import Ended, hansa
from hansa import clock, ids
from hansa.api.audit import AuditedEvent
from hansa.db.pool import open_database
from hansa.tenants.service import tenant_id
from samples import SCRIPTED, agent
from stack import Process, Stack, plain_client

LISTED = "/v1/audit-events"


class Auditor:
    """A person with the role `auditor` in a tenant of its own, in which an admin has done something."""

    def __init__(self, url: str, key: str, tenant: str, place: Path) -> None:
        self.tenant = tenant
        self.place = place
        self.url = url
        self._env = {"HANSA_URL": url, "HANSA_API_KEY": key}
        self.headers = {"authorization": f"Bearer {key}"}

    def types(self, *arguments: str) -> Ended:
        return hansa("audit", *arguments, cwd=self.place, **self._env)


@pytest.fixture
async def auditor(api: httpx2.AsyncClient, control_plane: Process, tmp_path: Path) -> Auditor:
    """Its tenant's trail: the tenant was created, three keys were made, two agents were created and one was deleted."""
    name = f"t-{ids.new_id().hex[-10:]}"
    there = {"hansa-tenant": name}
    made = {"apiVersion": "hansa.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": {}}
    assert (await api.post("/v1/objects:apply", json={"objects": [{"manifest": made}]})).json()["failed"] == 0
    keys = [
        (await api.post("/v1/api-keys", json={"name": role, "roles": [role]}, headers=there)).json()
        for role in ("auditor", "viewer", "developer")
    ]
    for each in (SCRIPTED, agent("one"), agent("two")):
        applied = await api.post("/v1/objects:apply", json={"objects": [{"manifest": each}]}, headers=there)
        assert applied.json()["failed"] == 0, applied.text
    assert (await api.delete("/v1/agents/two", headers=there)).status_code == 204
    async with plain_client(control_plane.url, headers={"authorization": f"Bearer {keys[1]['key']}"}) as viewer:
        problem(await viewer.get(LISTED), 403, "forbidden")
    return Auditor(control_plane.url, keys[0]["key"], name, tmp_path)


async def listed(auditor: Auditor, **query: Any) -> list[AuditedEvent]:
    async with plain_client(auditor.url, headers=auditor.headers) as client:
        answer = await client.get(LISTED, params=query)
        assert answer.status_code == 200, answer.text
        return msgspec.convert(answer.json()["data"], list[AuditedEvent])


async def test_events_are_listed_and_filtered(auditor: Auditor) -> None:
    found = await listed(auditor)
    assert [each.seq for each in found] == list(range(9, 0, -1))
    assert [each.action for each in found] == [
        *("access.refused", "object.deleted", "object.created", "object.created", "object.created"),
        *("key.made", "key.made", "key.made", "tenant.created"),
    ]
    admin = found[1].actor.name
    assert (found[1].actor.tenant, found[1].outcome, found[0].outcome) == ("default", "done", "refused")
    assert [each.seq for each in await listed(auditor, action="key.made")] == [4, 3, 2]
    assert [each.seq for each in await listed(auditor, target="Agent/two")] == [8, 7]
    assert [each.seq for each in await listed(auditor, outcome="refused")] == [9]
    assert [each.seq for each in await listed(auditor, actor=admin, action="object.deleted")] == [8]
    assert [each.seq for each in await listed(auditor, since=found[2].at, until=found[0].at)] == [8, 7]
    assert await listed(auditor, since="2999-01-01T00:00:00Z") == []
    assert "hsa_live_" not in str(found)


async def test_pages_have_every_event_once(auditor: Auditor) -> None:
    seen, after = list[int](), None
    async with plain_client(auditor.url, headers=auditor.headers) as client:
        while True:
            page = (await client.get(LISTED, params={"limit": 4} | ({"after": after} if after else {}))).json()
            seen += [each["seq"] for each in page["data"]]
            after = page["next"]
            if not page["has_more"]:
                break
        problem(await client.get(LISTED, params={"limit": 4, "after": "bm9uc2Vuc2U"}), 400, "malformed")
    assert seen == list(range(9, 0, -1))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"action": "key.juggled"}, "is not one of"),
        ({"outcome": "maybe"}, "is not one of done, refused"),
        ({"since": "yesterday"}, "is not a time with its zone"),
        ({"until": "2030-01-01T00:00:00"}, "is not a time with its zone"),
        ({"since": "0001-01-01T00:00:00+23:59"}, "is not a time with its zone"),
        ({"tenant": "other"}, "unknown query parameter"),
    ],
)
async def test_a_filter_that_means_nothing_is_refused(query: dict[str, str], said: str, api: httpx2.AsyncClient) -> None:
    assert said in problem(await api.get(LISTED, params=query), 422, "invalid")["detail"]


async def test_another_tenants_trail_is_not_seen(auditor: Auditor, control_plane: Process, keys: Keys) -> None:
    async with plain_client(control_plane.url, headers=keys.other_tenant) as other:
        for path in (LISTED, f"{LISTED}:export", f"{LISTED}:verify"):
            answer = await other.get(path)
            assert answer.status_code == 200
            assert auditor.tenant not in answer.text
            assert str(tenant_id(auditor.tenant)) not in answer.text


def test_the_command_line_lists_exports_and_verifies(auditor: Auditor) -> None:
    table = auditor.types().out
    assert "object.deleted" in table
    assert "Agent/two" in table
    assert [each["seq"] for each in json.loads(auditor.types("list", "--action", "key.made", "--output", "json").out)] == [4, 3, 2]
    whole = auditor.types("verify")
    assert (whole.status, whole.out) == (0, "whole: rows 1 to 9, each as it was written\n")
    assert "no checkpoint outside" in whole.err
    export = auditor.types("export")
    lines = export.out.splitlines()
    assert [len(lines), json.loads(lines[0])["format"], json.loads(lines[-1])] == [11, "hansa-audit/1", {"end": {"rows": 9, "last": 9}}]
    file = auditor.place / "audit.jsonl"
    file.write_text(export.out)
    assert auditor.types("verify", "--file", str(file)).status == 0
    file.write_text(export.out.replace("Agent/two", "Agent/too"))
    broken = auditor.types("verify", "--file", str(file))
    assert (broken.status, broken.out.startswith("BROKEN at row 7 (changed): row 7 does not follow")) == (1, True)
    file.write_text(export.out.replace(lines[3] + "\n", ""))
    missing = json.loads(auditor.types("verify", "--file", str(file), "--output", "json").out)
    assert (missing["ok"], missing["finding"]["seq"], missing["finding"]["kind"]) == (False, 3, "missing")
    since = json.loads(lines[4])["at"]
    assert len(auditor.types("export", "--since", since).out.splitlines()) == 8


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("verify", "--checkpoints", "."), 2, "go with --file"),
        (("verify", "--file", "x", "--checkpoints", "nowhere"), 2, "is not a folder"),
        (("verify", "--file", "nowhere"), 65, "can't be read"),
        (("verify", "--file", "."), 65, "can't be read"),
        (("list", "--action", "key.juggled"), 65, "is not one of"),
        (("list", "--since", "soon"), 2, "--since is no time"),
        (("public-key", "nowhere"), 78, "can't be read"),
    ],
)
def test_what_is_typed_wrongly_is_told(
    stack: Stack, control_plane: Process, tmp_path: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    ended = Auditor(control_plane.url, stack.key, "default", tmp_path).types(*arguments)
    assert ended.status == status, ended
    assert said in ended.err


def test_a_file_that_is_no_export_is_told(auditor: Auditor) -> None:
    for text, said in (
        ("", "line 1"),
        ('{"format":"x","tenant":"t","after":{"seq":0,"hash":""}}\n', "the format is 'x'"),
        ("nonsense\n", "line 1"),
    ):
        file = auditor.place / "no-export"
        file.write_text(text)
        ended = auditor.types("verify", "--file", str(file))
        assert (ended.status, said in ended.err) == (65, True), ended


async def test_an_auditor_elsewhere_needs_only_the_export_the_checkpoints_and_the_public_key(auditor: Auditor, stack: Stack) -> None:
    """And needs no server: the trail is sealed by a keeper of the test, and hashed anew where the auditor does not see it."""
    folder = auditor.place / "outside"
    async with open_database(stack.settings.database) as database:
        await keeper(database, outside(folder)).sweep()
    file = auditor.place / "audit.jsonl"
    file.write_text(auditor.types("export").out)
    believed = ("--checkpoints", str(folder), "--public-key", SIGNER.public_key)
    fine = auditor.types("verify", "--file", str(file), *believed)
    assert (fine.status, "borne out up to row 9" in fine.out, fine.err) == (0, True, "")
    strange = auditor.types("verify", "--file", str(file), "--checkpoints", str(folder), "--public-key", "0" * 64)
    assert (strange.status, "not known here" in strange.out) == (1, True)


async def test_a_worker_seals_and_the_control_plane_verifies(stack: Stack, auditor: Auditor) -> None:
    hasty = stack.worker(HANSA_AUDIT_SEAL_SECONDS="0.5", HANSA_WORKER_POLL_SECONDS="60")
    try:
        end = clock.monotonic() + 20
        while "borne out up to row 9" not in (told := auditor.types("verify").out):
            assert clock.monotonic() < end, told
    finally:
        hasty.stop()
    owner = await asyncpg.connect(stack.admin_url)
    await owner.execute("SET session_replication_role = replica")
    changed = "UPDATE hansa.audit_events SET at = at + $2 * interval '1 microsecond' WHERE tenant_id = $1 AND seq = 5"
    await owner.execute(changed, tenant_id(auditor.tenant), 1)
    broken = auditor.types("verify")
    assert (broken.status, "BROKEN at row 5 (changed)" in broken.out) == (1, True)
    await owner.execute(changed, tenant_id(auditor.tenant), -1)
    await owner.close()
    assert auditor.types("verify").status == 0


def test_times_of_events_are_times(auditor: Auditor) -> None:
    for line in auditor.types("export").out.splitlines()[1:-1]:
        assert (datetime.now(UTC) - datetime.fromisoformat(json.loads(line)["at"])).total_seconds() < 600
