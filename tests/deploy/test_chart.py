"""The chart and what kustomize makes of it: what is rendered holds together, and what makes no sense is refused with what to do."""

import copy
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclopts import CycloptsError

import reference
from deploy.charts import (
    CHART,
    REGIONS,
    ROOT,
    SETS,
    VALUES,
    Object,
    chart,
    containers,
    helm,
    kustomized,
    named,
    objects,
    of_kind,
    templated,
    variables,
)
from deploy.rules import (
    RULES,
    Rule,
    short_graces,
    unknown_variables,
    unmounted,
    unprobed,
    unsafe,
    unselected,
    written_secrets,
)
from hansa.api import health
from hansa.cli.application import build
from hansa_operator.settings import variables as operator_variables

SOURCES = (*SETS, *(f"overlay-{region}" for region in REGIONS))
OPERATOR = "\n".join(path.read_text() for path in sorted((ROOT / "operator").rglob("settings.py")))


@functools.cache
def known() -> frozenset[str]:
    """Every variable that some process reads, and is documented."""
    listed = {each.variable for each in (*reference.settings(ROOT), *reference.tool_settings(ROOT))}
    listed |= set(re.findall(r"^\| `(HANSA_SECRETS_\w+)`", (ROOT / "docs/secrets.md").read_text(), re.MULTILINE))
    return frozenset(listed) | set(re.findall(r'env\("(HANSA_OPERATOR_\w+)"\)', OPERATOR))


STORES: dict[str, Any] = {"artifacts": {"url": "s3://a"}, "audit": {"url": "s3://b"}}
WITHOUT: dict[str, Any] = {"operator": {"enabled": False}, "serve": {"tlsSecret": "tls", "tlsClientCertificates": True}}


def rendered(source: str) -> list[Object]:
    """The chart with a set of values, or a region's overlay."""
    region = source.removeprefix("overlay-")
    return objects(kustomized(f"gitops/platform/overlays/{region}")) if region in REGIONS and region != source else chart(source)


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_rendered_breaks_no_rule(source: str) -> None:
    found = rendered(source)
    assert len(found) >= 8
    broken = {rule.__name__: rule(found, known()) for rule in RULES}
    assert broken == {rule.__name__: [] for rule in RULES}


def _serve(found: list[Object]) -> Object:
    return named(found, "Deployment", "hansa-serve")["spec"]["template"]["spec"]


def _mistyped(found: list[Object]) -> None:
    _serve(found)["containers"][0]["env"].append({"name": "HANSA_DATABSE_TIMEOUT_SECONDS", "value": "3"})


def _mistyped_setting(found: list[Object]) -> None:
    named(found, "ConfigMap", "hansa-settings")["data"]["HANSA_REGIN"] = "north"


def _without_liveness(found: list[Object]) -> None:
    del named(found, "Deployment", "hansa-worker-default")["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]


def _elsewhere(found: list[Object]) -> None:
    _serve(found)["containers"][0]["readinessProbe"]["httpGet"]["path"] = "/healthz"


def _one_probe_for_both(found: list[Object]) -> None:
    _serve(found)["containers"][0]["livenessProbe"]["httpGet"]["path"] = "/readyz"


def _as_root(found: list[Object]) -> None:
    _serve(found)["securityContext"]["runAsUser"] = 0


def _writable(found: list[Object]) -> None:
    _serve(found)["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = False


def _with_token(found: list[Object]) -> None:
    _serve(found)["automountServiceAccountToken"] = True


def _operator_without_token(found: list[Object]) -> None:
    named(found, "Deployment", "hansa-operator")["spec"]["template"]["spec"]["automountServiceAccountToken"] = False


def _written(found: list[Object]) -> None:
    found.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "stringData": {"pepper": "hot"}})


def _written_url(found: list[Object]) -> None:
    _serve(found)["containers"][0]["env"][0] = {"name": "HANSA_DATABASE_APP_URL", "value": "postgresql://a:b@c/d"}


def _not_mounted(found: list[Object]) -> None:
    _serve(found)["containers"][0]["volumeMounts"] = [
        each for each in _serve(found)["containers"][0]["volumeMounts"] if each["name"] != "keys"
    ]


def _killed(found: list[Object]) -> None:
    _serve(found)["terminationGracePeriodSeconds"] = 30


def _nobody_behind(found: list[Object]) -> None:
    named(found, "Service", "hansa-serve")["spec"]["selector"]["app.kubernetes.io/component"] = "server"


def _two_numbers(found: list[Object]) -> None:
    named(found, "Deployment", "hansa-serve")["spec"]["replicas"] = 2


def _without_budget(found: list[Object]) -> None:
    found.remove(named(found, "PodDisruptionBudget", "hansa-serve"))


def _without_policy(found: list[Object]) -> None:
    found.remove(named(found, "NetworkPolicy", "hansa-worker"))


@pytest.mark.parametrize(
    ("rule", "damage"),
    [
        (unknown_variables, _mistyped),
        (unknown_variables, _mistyped_setting),
        (unprobed, _without_liveness),
        (unprobed, _elsewhere),
        (unprobed, _one_probe_for_both),
        (unsafe, _as_root),
        (unsafe, _writable),
        (unsafe, _with_token),
        (unsafe, _operator_without_token),
        (written_secrets, _written),
        (written_secrets, _written_url),
        (unmounted, _not_mounted),
        (short_graces, _killed),
        (unselected, _nobody_behind),
        (unselected, _two_numbers),
        (unselected, _without_budget),
        (unselected, _without_policy),
    ],
    ids=lambda each: each.__name__.strip("_"),
)
def test_a_rule_sees_what_breaks_it(rule: Rule, damage: Callable[[list[Object]], None]) -> None:
    found = copy.deepcopy(chart("defaults"))
    damage(found)
    assert rule(found, known())


def test_the_probes_ask_paths_that_the_control_plane_has() -> None:
    assert {path for handler in health.HANDLERS for path in handler.paths} == {"/livez", "/readyz"}


@pytest.mark.parametrize(("by", "values"), [*(("helm", each) for each in SETS), ("helm4", "everything"), ("helm4", "minimal")])
def test_helm_finds_nothing_to_complain_of(by: str, values: str) -> None:
    told = helm("lint", "--strict", str(CHART), f"--values={VALUES / f'{values}.yaml'}", by=by)
    assert "1 chart(s) linted, 0 chart(s) failed" in told


@pytest.mark.parametrize("values", SETS)
def test_both_helms_make_the_same_of_the_chart(values: str) -> None:
    assert objects(templated(values, by="helm4")) == chart(values)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "artifacts.url: control planes and workers must reach the same store"),
        ({"artifacts": {"url": "s3://a"}}, "audit.url: name a bucket for the checkpoints"),
        ({"artifacts": {"url": "/srv/artifacts"}}, "url"),
        ({"settings": {"HANSA_RETENTION_DAY": 3}}, "HANSA_RETENTION_DAY"),
        ({"settings": {"HANSA_DATABASE_URL": "postgresql://a:b@c/d"}}, "HANSA_DATABASE_URL"),
        ({"settings": {"HANSA_REGION": "north"}}, "HANSA_REGION"),
        ({"operator": {"settings": {"HANSA_RETENTION_DAYS": 3}}}, "HANSA_RETENTION_DAYS"),
        ({"serve": {"replica": 3}}, "replica"),
        ({"workers": [{"pools": ["default"]}]}, "name"),
        ({"workers": []}, "workers"),
        ({"workers": [{"name": "a", "keda": {"minReplicas": 0}}]}, "minReplicas"),
        ({"workers": [{"name": "a", "pools": ["x'); DROP TABLE runs --"]}]}, "pools"),
        ({"workerDefaults": {"seccompProfile": "Localhost"}}, "seccompProfile"),
        ({**STORES, "sync": {"enabled": True}}, "sync.url: the address of the Git repository"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({**STORES, "workers": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}, "workers: two are named a"),
        (
            {**STORES, "sync": {"enabled": True, "url": "https://git.example.org/a.git", "verify": "head"}},
            "sync.verify: name in sync.settings",
        ),
        ({**STORES, "serve": {"tlsSecret": "tls", "tlsClientCertificates": True}}, "the operator has no certificate to show"),
        (
            {**STORES, **WITHOUT, "sync": {"enabled": True, "url": "https://git.example.org/a.git"}},
            "sync: name in sync.settings.HANSA_CLIENT_CERT_FILE",
        ),
    ],
    ids=lambda each: str(each)[:40] if isinstance(each, str) else None,
)
def test_values_that_make_no_sense_are_refused_by_name(values: dict[str, Any], told: str, tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    said = helm("template", "hansa", str(CHART), f"--values={tmp_path / 'values.yaml'}", status=1)
    assert told in said, said


@pytest.mark.parametrize(
    ("value", "told"), [("serve.replica=3", "replica"), ("audit.url=", "audit.url: name a bucket")], ids=["schema", "template"]
)
def test_helm_4_refuses_by_name_as_well(value: str, told: str) -> None:
    said = helm("template", "hansa", str(CHART), f"--values={VALUES / 'defaults.yaml'}", f"--set={value}", status=1, by="helm4")
    assert told in said, said


def test_a_chart_that_is_part_of_another_may_be_handed_globals(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(
        yaml.safe_dump({"global": {"team": "ops"}, "artifacts": {"url": "s3://a"}, "audit": {"url": "s3://b"}})
    )
    assert "kind: Deployment" in helm("template", "hansa", str(CHART), f"--values={tmp_path / 'values.yaml'}")


def test_the_database_is_migrated_before_anything_else_is_upgraded() -> None:
    (job,) = of_kind(chart("defaults"), "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    # Only this one has the admin's way in.
    assert templated("defaults").count("HANSA_DATABASE_URL") == 1
    assert any(each["name"] == "HANSA_DATABASE_URL" for each in job["spec"]["template"]["spec"]["containers"][0]["env"])


def test_the_key_to_all_accounts_of_nats_is_with_the_control_plane_alone() -> None:
    found = chart("everything")
    having = [each["metadata"]["name"] for each in of_kind(found, "Deployment", "Job") if "hansa-nats-operator" in str(each)]
    assert having == ["hansa-serve"]


def test_the_operator_may_do_what_its_file_says_and_nothing_else() -> None:
    written = {
        (each["kind"], each["metadata"]["name"]): each["rules"] for each in objects((CHART / "files/operator-rbac.yaml").read_text())
    }
    found = chart("defaults")
    assert {(each["kind"], each["metadata"]["name"]): each["rules"] for each in of_kind(found, "ClusterRole", "Role")} == written
    bound = [(each["kind"], each["roleRef"]["name"], each["subjects"]) for each in of_kind(found, "ClusterRoleBinding", "RoleBinding")]
    account = [{"kind": "ServiceAccount", "name": "hansa-operator", "namespace": "hansa"}]
    assert bound == [("ClusterRoleBinding", "hansa-operator", account), ("RoleBinding", "hansa-operator", account)]


def test_every_setting_of_the_operator_is_the_charts_own_or_may_be_given() -> None:
    schema, template = (CHART / "values.schema.json").read_text(), (CHART / "templates/operator.yaml").read_text()
    assert [name for name in operator_variables() if f'"{name}"' not in schema and f"name: {name}" not in template] == []


def test_objects_are_held_from_the_start_where_the_version_of_kubernetes_can_do_that() -> None:
    kinds = ("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding")
    written = [(each["kind"], each["spec"]) for each in objects((CHART / "files/operator-admission.yaml").read_text())]
    assert of_kind(chart("defaults"), *kinds) == []
    for version, made in (("1.35.9", []), ("1.36.0", written)):
        values = (f"--values={VALUES / 'defaults.yaml'}", "--set=operator.admission=true")
        found = of_kind(objects(helm("template", "hansa", str(CHART), f"--kube-version={version}", *values)), *kinds)
        assert [(each["kind"], each["spec"]) for each in found] == made, version


def test_a_changed_setting_starts_pods_anew(tmp_path: Path) -> None:
    def pods(region: str) -> str:
        told = helm("template", "hansa", str(CHART), f"--values={VALUES / 'defaults.yaml'}", f"--set=region={region}")
        return str(named(objects(told), "Deployment", "hansa-worker-default")["spec"]["template"])

    assert pods("north") != pods("south")


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_is_an_overlay_that_says_only_its_own(region: str) -> None:
    base, own = objects(kustomized("gitops/platform/base")), objects(kustomized(f"gitops/platform/overlays/{region}"))
    assert [(each["kind"], each["metadata"]["name"][:14]) for each in base] == [
        (each["kind"], each["metadata"]["name"][:14]) for each in own
    ]
    (settings,) = (each for each in of_kind(own, "ConfigMap") if each["metadata"]["name"].startswith("hansa-settings-"))
    assert settings["data"]["HANSA_REGION"] == region
    assert all(region in settings["data"][name] for name in ("HANSA_ARTIFACTS_URL", "HANSA_AUDIT_URL"))
    (job,) = of_kind(own, "Job")
    assert variables(job["spec"]["template"]["spec"]["containers"][0])["HANSA_REGION"] == region
    named_settings = settings["metadata"]["name"]
    assert str(own).count(named_settings) >= 3, "the pods name the ConfigMap that there is"


def test_regions_share_no_bucket() -> None:
    stores = [
        text
        for region in REGIONS
        for each in of_kind(objects(kustomized(f"gitops/platform/overlays/{region}")), "ConfigMap")
        for name, text in each["data"].items()
        if name in ("HANSA_ARTIFACTS_URL", "HANSA_AUDIT_URL")
    ]
    assert len(stores) == len(set(stores)) == 2 * len(REGIONS)


@pytest.mark.parametrize("source", ["defaults", "everything"])
def test_every_command_line_is_one_that_hansa_takes(source: str) -> None:
    asked = [container["args"] for _, _, container in containers(chart(source)) if "args" in container]
    assert {each[0] for each in asked} >= {"serve", "worker", "migrate"}
    for arguments in asked:
        build().parse_args(arguments, exit_on_error=False, print_error=False)
    with pytest.raises(CycloptsError):
        build().parse_args(["serve", "--prot=7420"], exit_on_error=False, print_error=False)
