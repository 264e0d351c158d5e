"""A token of an issuer that a tenant names opens that tenant and no other, for as much as its role bindings say."""

import asyncio
import re
from typing import Any

import httpx2
import pytest

from api.problem import problem
from doubles.oidc_provider import OidcProvider
from identity.place import Town, issuer, tenant
from stack import Process, Stack

Json = dict[str, Any]
OPERATORS: Json = {"roles": ["operator"], "groups": ["corp:crew"]}
VIEWER: Json = {"roles": ["viewer"], "users": ["corp:ada"]}


async def test_an_issuer_that_the_door_would_refuse_is_refused_when_it_is_written(
    api: httpx2.AsyncClient, shared_provider: OidcProvider
) -> None:
    for address in (shared_provider.url, "https://10.0.0.7", "https://localhost", "https://id.corp"):
        manifest = tenant("refused", {"name": "corp", "issuer": address, "audience": "hansa"})
        (found,) = (await api.post("/v1/objects:apply", json={"objects": [{"manifest": manifest}]})).json()["results"]
        (error,) = found["errors"]
        assert error["path"] == "spec.identity.issuers[0].issuer"
        assert "HANSA_EGRESS_ISSUERS_ALLOW" in error["message"]


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"issuer": "http://id.acme.example"}, "issuer"),
        ({"issuer": "https://id.acme.example?a=b"}, "issuer"),
        ({"audience": ""}, "audience"),
        ({"typ": "id"}, "typ"),
        ({"name": "Corp"}, "name"),
        ({"claims": {"user": "a b"}}, "claims.user"),
        ({"jwksUri": "file:///etc"}, "jwksUri"),
    ],
)
async def test_a_wrong_issuer_is_refused_by_name(town: Town, wrong: Json, path: str) -> None:
    (found,) = await town.apply(tenant("refused", {**issuer(town.provider, "hansa"), **wrong}))
    assert [error["path"] for error in found["errors"]] == [f"spec.identity.issuers[0].{path}"]


async def test_a_binding_names_an_issuer_of_the_tenant_and_a_role_of_tenants(town: Town) -> None:
    for binding, path in (
        ({"roles": ["viewer"], "users": ["other:ada"]}, "users[0]"),
        ({"roles": ["platform-admin"], "users": ["corp:ada"]}, "roles[0]"),
        ({"roles": [], "users": ["corp:ada"]}, "roles"),
        ({"roles": ["viewer"], "groups": ["crew"]}, "groups[0]"),
    ):
        (found,) = await town.apply(tenant("refused", issuer(town.provider, "hansa"), bindings=[binding]))
        assert [error["path"] for error in found["errors"]] == [f"spec.identity.roleBindings[0].{path}"]


async def test_an_issuer_and_audience_are_one_tenants(town: Town) -> None:
    first = await town.make()
    taken = issuer(town.provider, first)
    (found,) = await town.apply(tenant("refused", issuer(town.provider, "fine"), {**taken, "name": "taken"}))
    assert [(error["path"], error["code"]) for error in found["errors"]] == [("spec.identity.issuers[1].audience", "duplicate")]
    problem(await town.client.get("/v1/tenants/refused"), 404, "not_found")
    (found,) = await town.apply(tenant(first, taken, {**taken, "name": "twice"}))
    assert found["action"] == "failed"
    assert (await town.ask(town.provider.mint(claims={"aud": first}))).status_code == 403  # what stood there still holds


async def test_a_token_names_a_user_with_the_roles_that_are_bound_to_it(town: Town) -> None:
    name = await town.make(OPERATORS, VIEWER)
    me = (await town.ask(town.provider.mint(claims={"aud": name}, groups=["crew", "cooks"]))).json()
    assert (me["name"], me["kind"], me["tenant"]) == ("user:corp:ada", "user", name)
    assert (me["roles"], me["groups"]) == (["operator", "viewer"], ["corp:crew", "corp:cooks"])
    assert (await town.ask(town.provider.mint(claims={"aud": name}))).json()["roles"] == ["viewer"]
    stranger = town.provider.mint(claims={"aud": name}, user="eve", groups=["ada", "operator"])
    assert "your roles are none" in problem(await town.ask(stranger), 403, "forbidden")["detail"]


async def test_a_run_is_started_by_the_user(town: Town) -> None:
    name = await town.make(OPERATORS)
    token = town.provider.mint(claims={"aud": name}, groups=["crew"])
    answer = await town.client.post("/v1/agents/echo/runs", json={"input": "hi"}, headers={"authorization": f"Bearer {token}"})
    assert answer.json()["started_by"] == {"name": "user:corp:ada", "kind": "user", "may": ["runs:start"]}


async def test_a_token_opens_no_other_tenant(town: Town) -> None:
    mine, other = await town.make(VIEWER), await town.make(VIEWER)
    token = town.provider.mint(claims={"aud": mine})
    assert (await town.ask(token)).json()["tenant"] == mine
    problem(await town.ask(token, **{"hansa-tenant": other}), 403, "forbidden")
    problem(await town.ask(town.provider.mint(claims={"aud": [mine, other]})), 401, "unauthenticated")
    with_own = await town.make(VIEWER)
    (found,) = await town.apply(
        tenant(
            with_own,
            {**issuer(town.provider, with_own), "name": "elsewhere", "issuer": "https://id.example.com"},
            bindings=[{"roles": ["viewer"], "users": ["elsewhere:ada"]}],
        )
    )
    assert found["action"] == "configured"
    problem(await town.ask(town.provider.mint(claims={"aud": with_own})), 401, "unauthenticated")
    claimed = town.provider.mint(claims={"aud": with_own, "iss": "https://id.example.com"})
    assert (await town.ask(claimed)).status_code in (401, 503)  # its keys are fetched from where it says, never from the token's maker


REFUSED: dict[str, tuple[str, Json]] = {
    "a stranger's signature": ("signature", {"by": "stranger"}),
    "no signature": ("alg", {"by": "nobody", "header": {"alg": "none"}}),
    "the public key as a secret": ("alg", {"by": "public"}),
    "another algorithm": ("alg", {"header": {"alg": "RS256"}}),
    "an unknown key": ("kid", {"header": {"kid": "made-up"}}),
    "an ID token": ("typ", {"header": {"typ": "JWT"}}),
    "a critical part": ("critical", {"header": {"crit": ["exp"]}}),
    "an unknown issuer": ("iss", {"claims": {"iss": "https://id.acme.example"}}),
    "no issuer": ("iss", {"claims": {"iss": None}}),
    "an issuer that no database takes": ("iss", {"claims": {"iss": "https://a\x00b.example"}}),
    "another audience": ("aud", {"claims": {"aud": "somebody-else"}}),
    "no expiry": ("exp", {"claims": {"exp": None}}),
    "a time that is over": ("exp", {"claims": {"exp": 1_700_000_000}}),
    "a time to come": ("nbf", {"claims": {"nbf": 4_000_000_000}}),
    "no user": ("sub", {"claims": {"sub": None}}),
}


NUMBERS = re.compile(r'"(trace|request)_id":"[0-9a-f]+"')
"""What is drawn for each answer, and may hold any short word."""


async def test_a_forged_token_is_refused_and_told_which_check_failed(town: Town) -> None:
    name = await town.make(VIEWER)
    assert (await town.ask(town.provider.mint(claims={"aud": name}))).status_code == 200
    for case, (word, asked) in REFUSED.items():
        token = town.provider.mint(**{**asked, "claims": {"aud": name, **asked.get("claims", {})}})
        answer = await town.ask(token)
        assert word in problem(answer, 401, "unauthenticated")["detail"], case
        told = answer.headers["www-authenticate"]
        assert told.startswith('Bearer error="invalid_token", error_description="')
        assert word in told
        for secret in (town.provider.url, name, "ada", "made-up", "somebody-else", token):
            assert secret not in NUMBERS.sub("", answer.text) + told, case


async def test_a_role_that_is_taken_away_is_gone_at_once(town: Town) -> None:
    name = await town.make(VIEWER)
    token = town.provider.mint(claims={"aud": name})
    assert (await town.ask(token)).status_code == 200
    await town.apply(tenant(name, issuer(town.provider, name)))
    problem(await town.ask(token), 403, "forbidden")


async def test_keys_are_changed_under_load_and_no_request_fails(stack: Stack, doorway: Process, provider: OidcProvider) -> None:
    town = Town(stack, doorway, provider)
    name = await town.make(VIEWER)
    tokens = [town.provider.mint(claims={"aud": name})]
    over = asyncio.Event()
    answers: list[int] = []

    async def asking() -> None:
        while not over.is_set():
            answers.append((await town.ask(tokens[len(answers) % len(tokens)])).status_code)

    loads = [asyncio.create_task(asking()) for _ in range(8)]
    while len(answers) < 100:
        await asyncio.sleep(0.01)
    town.provider.control(rotate="EdDSA", keep=True)
    tokens.extend(town.provider.mint(claims={"aud": name, "jti": str(n)}) for n in range(20))
    while len(answers) < 600:
        await asyncio.sleep(0.01)
    over.set()
    await asyncio.gather(*loads)
    await town.client.aclose()
    assert set(answers) == {200}


async def test_an_issuer_that_is_away_stops_nobody_who_was_let_in_before(town: Town) -> None:
    name = await town.make(VIEWER)
    assert (await town.ask(town.provider.mint(claims={"aud": name}))).status_code == 200
    town.provider.control(mode="down")
    try:
        assert (await town.ask(town.provider.mint(claims={"aud": name}))).status_code == 200
    finally:
        town.provider.control(mode="ok")
