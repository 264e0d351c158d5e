"""Argo CD's health of our objects, in the Lua that it runs: green only when the operator has said so of the present spec."""

from pathlib import Path
from typing import Any, cast

import lupa
import pytest
import yaml

from deploy.charts import CHART, ROOT
from hansa_crds.kinds import KINDS

SCRIPT = CHART / "files/health.lua"
CONFIG = ROOT / "gitops/argo-cd/config/health.yaml"


def judged(script: str, obj: dict[str, Any]) -> tuple[str, str]:
    """Status and message of an object, as Argo CD would show them."""
    lua = lupa.LuaRuntime(unpack_returned_tuples=True)

    def table(value: Any) -> Any:
        if isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            return lua.table_from({key: table(each) for key, each in fields.items()})
        return lua.table_from([table(each) for each in cast("list[Any]", value)]) if isinstance(value, list) else value

    found: Any = lua.execute(f"return function(o) obj = o\n{script}\nend")(table(obj))
    return str(found.status), str(found.message)


def condition(kind: str, status: str) -> dict[str, str]:
    return {"type": kind, "status": status, "reason": f"{kind}Reason", "message": f"why {kind} is {status}"}


def written(*conditions: dict[str, str], observed: int | None = 3, spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    """An object of generation 3 with these conditions."""
    status: dict[str, Any] = {"conditions": list(conditions)} | ({} if observed is None else {"observedGeneration": observed})
    return {"metadata": {"name": "a", "generation": 3, **metadata}, "spec": spec or {}, "status": status}


READY, UNREADY = condition("Ready", "True"), condition("Ready", "False")
RECONCILING, STALLED = condition("Reconciling", "True"), condition("Stalled", "True")
STATES = {
    "no status at all": ({"metadata": {"generation": 1}, "spec": {}}, "Progressing"),
    "the status that a definition begins with": (written(observed=-1), "Progressing"),
    "a status without a generation": (written(READY, observed=None), "Progressing"),
    "ready": (written(READY), "Healthy"),
    "not ready": (written(UNREADY), "Degraded"),
    "nobody knows": (written(condition("Ready", "Unknown")), "Progressing"),
    "no word on whether it is ready": (written(condition("Accepted", "True")), "Progressing"),
    "being worked on": (written(UNREADY, RECONCILING), "Progressing"),
    "being worked on, the word first": (written(RECONCILING, UNREADY), "Progressing"),
    "ready and being worked on": (written(READY, RECONCILING), "Progressing"),
    "stalled": (written(UNREADY, STALLED), "Degraded"),
    "stalled while the last good one serves": (written(READY, STALLED), "Degraded"),
    "no longer stalled": (written(READY, condition("Stalled", "False")), "Healthy"),
    "ready of an older spec": (written(READY, observed=2), "Progressing"),
    "stalled of an older spec": (written(STALLED, observed=2), "Progressing"),
    "suspended": (written(READY, spec={"suspend": True}), "Suspended"),
    "suspended before anyone has looked": ({"metadata": {"generation": 1}, "spec": {"suspend": True}}, "Suspended"),
    "not suspended": (written(READY, spec={"suspend": False}), "Healthy"),
    "being deleted": (written(READY, deletionTimestamp="2026-01-01T00:00:00Z"), "Progressing"),
    "a tenant of which nothing but a name is written": ({"metadata": {"generation": 1}}, "Progressing"),
}


@pytest.mark.parametrize("state", STATES)
def test_the_health_of_an_object_that_is(state: str) -> None:
    obj, expected = STATES[state]
    status, message = judged(SCRIPT.read_text(), obj)
    assert status == expected
    assert message


def test_a_script_that_takes_silence_for_health_is_seen() -> None:
    careless = SCRIPT.read_text().replace(
        'status = "Progressing", message = "Waiting for the operator"', 'status = "Healthy", message = ""'
    )
    wrong = [state for state, (obj, expected) in STATES.items() if judged(careless, obj)[0] != expected]
    assert "no status at all" in wrong


def test_what_is_wrong_is_told_in_the_words_of_the_condition() -> None:
    assert judged(SCRIPT.read_text(), written(UNREADY, STALLED)) == ("Degraded", "why Stalled is True")


def test_argo_cd_is_given_the_script_for_every_kind() -> None:
    data: dict[str, str] = yaml.safe_load(CONFIG.read_text())["data"]
    ours = {name: text for name, text in data.items() if "_Application" not in name}
    assert ours == {f"resource.customizations.health.hansa.dev_{kind}": SCRIPT.read_text() for kind in KINDS}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, "Progressing"),
        ({"health": {}}, "Progressing"),
        ({"health": {"status": "Degraded"}}, "Degraded"),
        ({"health": {"status": "Healthy"}}, "Healthy"),
    ],
)
def test_a_wave_of_applications_waits_for_their_health(status: dict[str, Any], expected: str) -> None:
    script = Path(ROOT / "gitops/argo-cd/config/application.lua").read_text()
    assert judged(script, {"metadata": {}, "status": status})[0] == expected
