"""Kubernetes Secrets, from the API server and from a mounted folder: a tenant's own namespace or folder, and no other."""

import base64
import secrets as randomness
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from doubles.rest import Asked, Said, rest_server
from hansa.auth.model import Principal
from hansa.egress.client import open_client
from hansa.egress.policy import EgressPolicy
from hansa.secrets.failures import SecretsAway, SecretsRefused
from secrecy.safe import Safe, open_safe
from stack import Stack

CANARY = f"canary-{randomness.token_hex(16)}"
TOKEN = "a-service-account-token-of-tests"


class ApiServer:
    """As much of the API server as a Secret takes: its wire form, its refusals."""

    def __init__(self) -> None:
        self.secrets: dict[tuple[str, str], dict[str, str]] = {}
        self.status = 0
        self.asked: list[Asked] = []
        self.port = 0

    def answer(self, asked: Asked) -> Said:
        """One request."""
        self.asked.append(asked)
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return self._status(401, "Unauthorized")
        if self.status:
            return self._status(self.status, "Because")
        parts = asked.path.split("/")
        if asked.method != "GET" or parts[:4] != ["", "api", "v1", "namespaces"] or parts[5] != "secrets":
            return self._status(404, "NotFound")
        found = self.secrets.get((parts[4], parts[6]))
        if found is None:
            return self._status(404, "NotFound")
        data = {name: base64.b64encode(value.encode()).decode() for name, value in found.items()}
        return Said(200, {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": parts[6], "namespace": parts[4]}, "data": data})

    def _status(self, code: int, reason: str) -> Said:
        headers = {"retry-after": "3"} if code == 429 else {}
        return Said(code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}, headers)


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    found = ApiServer()
    async with rest_server(found.answer) as found.port:
        yield found


@pytest.fixture
async def cluster(stack: Stack, server: ApiServer, keys: Path, tmp_path: Path) -> AsyncIterator[Safe]:
    """A process beside an API server and a folder of mounted Secrets."""
    (tmp_path / "token").write_text(TOKEN)
    options = {
        "key_file": str(keys),
        "kubernetes_url": f"http://127.0.0.1:{server.port}/",
        "kubernetes_token_file": str(tmp_path / "token"),
        "folder": str(tmp_path / "mounted"),
    }
    client = open_client(EgressPolicy(allow=(f"127.0.0.1:{server.port}",)))
    async with open_safe(stack.settings, http=client, **options) as safe:
        yield safe


async def test_a_secret_is_read_in_the_tenant_s_namespace_and_in_no_other(
    cluster: Safe, server: ApiServer, mine: Principal, theirs: Principal
) -> None:
    server.secrets[mine.tenant, "mail"] = {"password": CANARY, "user": "anna"}
    for who in (mine, theirs):
        await cluster.refer(who, "mail", "kubernetes", "mail")
    assert await cluster.secrets.value(mine.tenant_id, "mail", "password") == CANARY
    with pytest.raises(SecretsRefused, match=r"has no such Secret \(404\)"):
        await cluster.secrets.value(theirs.tenant_id, "mail", "password")
    assert {asked.path for asked in server.asked} == {f"/api/v1/namespaces/{who.tenant}/secrets/mail" for who in (mine, theirs)}


@pytest.mark.parametrize("path", ["a/b", "Upper", "a_b", "a" * 300])
async def test_what_is_no_name_of_a_secret_is_not_asked_for(cluster: Safe, server: ApiServer, mine: Principal, path: str) -> None:
    await cluster.refer(mine, "mail", "kubernetes", path)
    with pytest.raises(SecretsRefused, match="not the name of a Kubernetes Secret"):
        await cluster.secrets.value(mine.tenant_id, "mail")
    assert server.asked == []


@pytest.mark.parametrize(
    ("status", "kind"), [(401, SecretsRefused), (403, SecretsRefused), (429, SecretsAway), (500, SecretsAway), (503, SecretsAway)]
)
async def test_what_the_api_server_refuses_is_told_apart_from_what_passes(
    cluster: Safe, server: ApiServer, mine: Principal, status: int, kind: type[Exception]
) -> None:
    await cluster.refer(mine, "mail", "kubernetes", "mail")
    server.status = status
    with pytest.raises(kind, match=rf"the Secret mail of namespace {mine.tenant}.*{status}") as caught:
        await cluster.secrets.value(mine.tenant_id, "mail")
    assert TOKEN not in str(caught.value)


async def test_a_mounted_secret_is_read_as_it_is_now_also_through_the_links_of_a_mount(
    cluster: Safe, mine: Principal, theirs: Principal, tmp_path: Path
) -> None:
    await cluster.refer(mine, "mail", "folder", "mail")
    await cluster.refer(mine, "alone", "folder", "alone")
    with pytest.raises(SecretsAway, match="is not there"):
        await cluster.secrets.value(mine.tenant_id, "mail")
    place = tmp_path / "mounted" / mine.tenant
    data = place / "mail" / "..2026_11_30"
    data.mkdir(parents=True)
    (data / "password").write_text(f"{CANARY}\n")
    (place / "mail" / "..data").symlink_to("..2026_11_30")
    (place / "mail" / "password").symlink_to("..data/password")
    (place / "alone").write_text("a file alone")
    assert await cluster.secrets.value(mine.tenant_id, "mail", "password") == CANARY
    assert await cluster.secrets.value(mine.tenant_id, "alone") == "a file alone"
    await cluster.refer(theirs, "mail", "folder", "mail")
    with pytest.raises(SecretsRefused, match="there is no 'mail' in the folder of tenant"):
        await cluster.secrets.value(theirs.tenant_id, "mail")


async def test_a_link_out_of_a_tenant_s_folder_leads_nowhere(cluster: Safe, mine: Principal, theirs: Principal, tmp_path: Path) -> None:
    for who in (mine, theirs):
        (tmp_path / "mounted" / who.tenant).mkdir(parents=True)
    (tmp_path / "mounted" / mine.tenant / "own").write_text(CANARY)
    (tmp_path / "mounted" / theirs.tenant / "reach").symlink_to(tmp_path / "mounted" / mine.tenant / "own")
    await cluster.refer(theirs, "reach", "folder", "reach")
    with pytest.raises(SecretsRefused, match="leads out of the tenant's folder"):
        await cluster.secrets.value(theirs.tenant_id, "reach")
