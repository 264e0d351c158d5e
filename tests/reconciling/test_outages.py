"""The operator while a server is away, silent, or has too much to do, against a real API server."""

import time

import pytest

from reconciling.rig import Rig, until

pytestmark = pytest.mark.timeout(120, func_only=True)


def test_watches_that_fall_silent_are_opened_anew(rig: Rig) -> None:
    name = rig.tenant()
    rig.provider(name)
    rig.kube.silent = True
    try:
        path = rig.agent(name)
        rig.comes(path, "True")
    finally:
        rig.kube.silent = False
    assert any(each.says("watches have missed") for each in rig.operators)
    rig.agent(name, description="heard again")
    rig.comes(path, "True")


@pytest.mark.parametrize("status", [429, 500])
def test_refusals_of_the_api_server_are_tried_again(rig: Rig, status: int) -> None:
    name = rig.tenant()
    rig.provider(name)
    turns = iter(range(10**6))
    rig.kube.refuse = lambda method, path: status if "/leases/" not in path and method != "GET" and next(turns) % 3 else 0
    try:
        path = rig.agent(name)
        rig.comes(path, "True")
    finally:
        rig.kube.refuse = lambda method, path: 0
    assert rig.kube.refused > 0


def test_who_leads_goes_on_leading_while_all_other_requests_wait(rig: Rig) -> None:
    name = rig.tenant()
    rig.provider(name)

    def resigned() -> int:
        return sum(each.log.read_text().count("is the leader no longer") for each in rig.operators)

    before, held_up = resigned(), list[str]()

    def delay(method: str, path: str) -> float:
        if method != "PATCH" or f"/{name}/agents/" not in path:
            return 0.0
        held_up.append(path)
        return 5.0  # longer than the lease, and there are more of these than connections

    rig.kube.delay = delay
    try:
        paths = [rig.agent(name, f"agent-{number}") for number in range(40)]
        until(lambda: len(held_up) >= 32, what="all connections are taken")
        time.sleep(4)
    finally:
        rig.kube.delay = lambda method, path: 0.0
    for path in paths:
        rig.comes(path, "True")
    assert resigned() == before


def test_the_control_plane_is_away_and_back(rig: Rig) -> None:
    name = rig.tenant()
    rig.provider(name)
    old = rig.agent(name, "old")
    rig.comes(old, "True")
    rig.rest.away = True
    try:
        new = rig.agent(name, "new")
        until(lambda: rig.condition(new) == ("Unknown", "ControlPlaneUnavailable"), what=lambda: str(rig.get(new)))
        assert rig.condition(old) == ("True", rig.condition(old)[1])
        rig.delete(old)
        time.sleep(0.5)
        assert rig.get(old)  # it is held until what was made of it is gone
    finally:
        rig.rest.away = False
    rig.comes(new, "True")
    rig.goes(old)
    assert not rig.stored(name, "Agent", "old")


def test_the_api_server_is_away_and_back(rig: Rig) -> None:
    name = rig.tenant()
    rig.provider(name)
    path = rig.agent(name)
    rig.comes(path, "True")
    before = len(rig.operators[-1].log.read_text())
    rig.kube.away = rig.rest.away = True
    time.sleep(4)  # longer than the lease
    rig.agent(name, description="changed meanwhile")
    rig.kube.away = False
    try:
        # It leads again, and says at once that there is nobody to bring anything to.
        until(lambda: "does not let us in, or is away" in rig.operators[-1].log.read_text()[before:], what=rig.said)
    finally:
        rig.rest.away = False
    said = rig.operators[-1].log.read_text()[before:]
    assert (said.count("the Lease can't be renewed"), said.count("the Lease can be looked at again"), said.count("attempt")) == (1, 1, 0)
    rig.comes(path, "True")
    assert rig.stored(name, "Agent", "one")["manifest"]["spec"]["description"] == "changed meanwhile"
