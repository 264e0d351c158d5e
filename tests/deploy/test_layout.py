"""The example repository: what tenants write is the same on a laptop, in one cluster and in three; only what is around it differs."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.charts import REGIONS, ROOT, Object, kustomized, named, objects, of_kind
from hansa.apply.manifests import read

TENANTS = ROOT / "gitops/tenants"
NAMES = tuple(sorted(path.name for path in TENANTS.iterdir() if path.is_dir()))
FLUX, SOURCE = "kustomize.toolkit.fluxcd.io/v1", "source.toolkit.fluxcd.io/v1"


def on_a_laptop(name: str) -> list[Object]:
    """A tenant's objects as `hansa apply` reads them."""
    found = read([TENANTS / name], recursive=True)
    assert not found.errors
    assert not [flaw for each in found.manifests for flaw in each.check()]
    return ordered([each.value for each in found.manifests], name)


def ordered(found: list[Object], tenant: str) -> list[Object]:
    """Objects in one order, each with the namespace that it goes to if it names none."""
    for each in found:
        if each["kind"] != "Tenant":
            each["metadata"].setdefault("namespace", tenant)
    return sorted(found, key=lambda each: (each["kind"], each["metadata"]["name"]))


def flux(region: str) -> list[Object]:
    """What Flux is told in the cluster of a region."""
    return objects(kustomized(f"gitops/clusters/{region}"))


def seen(patterns: str, tmp_path: Path) -> list[str]:
    """Files below gitops/tenants that a source with these exclusions holds; Flux reads them as Git does."""
    place = tmp_path / "repository"
    shutil.copytree(ROOT / "gitops", place / "gitops", dirs_exist_ok=True)
    (place / "README.md").write_text("not for clusters\n")
    (place / ".gitignore").write_text(patterns)
    subprocess.run(["git", "init", "--quiet", str(place)], check=True)
    command = ["git", "-C", str(place), "ls-files", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return sorted(each for each in listed if each != ".gitignore")


def in_a_cluster(region: str, name: str, tmp_path: Path) -> list[Object]:
    """A tenant's objects as Flux applies them there: by its sources, paths and target namespaces."""
    told, found = flux(region), list[Object]()
    for each in (one for one in told if one["apiVersion"] == FLUX and one["spec"]["path"].startswith("./gitops/tenants")):
        source = named(told, "GitRepository", each["spec"]["sourceRef"]["name"])
        below = f"{each['spec']['path'].removeprefix('./')}/"
        for file in seen(source["spec"]["ignore"], tmp_path):
            if file.startswith(below) and file.startswith(f"gitops/tenants/{name}/"):
                held = objects((ROOT / file).read_text())
                for one in held:
                    if "targetNamespace" in each["spec"] and one["kind"] != "Tenant":
                        one["metadata"]["namespace"] = each["spec"]["targetNamespace"]
                found += held
    return ordered(found, name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("region", REGIONS)
def test_a_tenants_files_are_the_same_on_a_laptop_and_in_every_region(region: str, name: str, tmp_path: Path) -> None:
    here = on_a_laptop(name)
    assert here
    assert in_a_cluster(region, name, tmp_path) == here


def test_a_file_that_a_cluster_leaves_out_is_seen(tmp_path: Path) -> None:
    left = seen("/*\n!/gitops\n/gitops/tenants/*/greeter.yaml\n", tmp_path)
    assert "gitops/tenants/acme/tenant.yaml" in left
    assert "gitops/tenants/acme/greeter.yaml" not in left


def test_tenant_objects_and_what_is_a_tenants_come_from_two_sources(tmp_path: Path) -> None:
    told = flux("north")
    tenancy, tenants = (seen(named(told, "GitRepository", f"hansa-{each}")["spec"]["ignore"], tmp_path) for each in ("tenancy", "tenants"))
    assert tenancy == [f"gitops/tenants/{name}/tenant.yaml" for name in NAMES], "a namespace that no Tenant claims is nobody's"
    assert all(each.startswith("gitops/tenants/") for each in tenants)
    assert not set(tenancy) & set(tenants)
    assert {*tenancy, *tenants} == {path.relative_to(ROOT).as_posix() for path in TENANTS.rglob("*.yaml")}


@pytest.mark.parametrize("region", REGIONS)
def test_flux_brings_up_platform_tenants_and_theirs_in_this_order(region: str) -> None:
    told = {each["metadata"]["name"]: each["spec"] for each in flux(region) if each["apiVersion"] == FLUX}
    assert set(told) == {"hansa", "hansa-tenancy", *(f"tenant-{name}" for name in NAMES)}
    after = {name: [each["name"] for each in spec.get("dependsOn", [])] for name, spec in told.items()}
    assert after == {"hansa": [], "hansa-tenancy": ["hansa"]} | {f"tenant-{name}": ["hansa-tenancy"] for name in NAMES}
    assert told["hansa"]["wait"], "what comes next waits for the platform"
    assert told["hansa-tenancy"]["wait"], "what is a tenant's waits for its namespace"
    assert told["hansa"]["path"] == f"./gitops/platform/overlays/{region}"
    for name in NAMES:
        for check in told[f"tenant-{name}"]["healthChecks"]:
            assert any((each["kind"], each["metadata"]["name"]) == (check["kind"], check["name"]) for each in on_a_laptop(name))


@pytest.mark.parametrize("region", REGIONS)
def test_flux_never_takes_a_tenant_away_and_gives_tenants_files_no_rights(region: str) -> None:
    told = {each["metadata"]["name"]: each["spec"] for each in flux(region) if each["apiVersion"] == FLUX}
    assert told["hansa-tenancy"]["prune"] is False
    for name in NAMES:
        spec = told[f"tenant-{name}"]
        assert (spec["targetNamespace"], spec["serviceAccountName"], spec["prune"]) == (name, "hansa-tenants", True)
    assert {spec.get("deletionPolicy") for name, spec in told.items() if name != "hansa-tenancy"} == {"Orphan"}
    (role,) = of_kind(flux(region), "ClusterRole")
    assert [rule["resources"] for rule in role["rules"]] == [["agents", "modelproviders", "toolservers"]]


def _argo(name: str) -> Object:
    return yaml.safe_load((ROOT / f"gitops/argo-cd/apps/{name}.yaml").read_text())


def test_argo_cd_brings_up_platform_tenants_and_theirs_in_this_order() -> None:
    waves = [
        int(_argo(name)["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"])
        for name in ("project", "platform", "tenancy", "tenants")
    ]
    assert waves == sorted(set(waves))
    # Waves of Applications wait for nothing unless their health is told.
    config: dict[str, Any] = yaml.safe_load((ROOT / "gitops/argo-cd/config/health.yaml").read_text())["data"]
    assert "resource.customizations.health.argoproj.io_Application" in config


def test_argo_cd_asks_a_person_before_a_tenant_is_taken_away() -> None:
    policy = _argo("tenancy")["spec"]["syncPolicy"]
    assert {"Prune=confirm", "Delete=confirm"} <= set(policy["syncOptions"])
    assert _argo("tenants")["spec"]["syncPolicy"]["preserveResourcesOnDeletion"] is True
    applications = [_argo("platform")["spec"], _argo("tenancy")["spec"], _argo("tenants")["spec"]["template"]["spec"]]
    assert all(each["syncPolicy"]["automated"]["allowEmpty"] is False for each in applications), "an empty repository prunes nothing"


def test_argo_cd_lets_tenants_files_make_three_kinds_alone() -> None:
    project = _argo("project")["spec"]
    assert project["clusterResourceWhitelist"] == []
    assert [each["kind"] for each in project["namespaceResourceWhitelist"]] == ["Agent", "ModelProvider", "ToolServer"]
    assert {"!argocd", "!hansa", "!kube-*"} <= {each["namespace"] for each in project["destinations"]}
    template = _argo("tenants")["spec"]["template"]["spec"]
    assert template["project"] == "hansa-tenants"
    assert template["source"]["directory"]["exclude"] == "tenant.yaml"
    assert _argo("tenancy")["spec"]["source"]["directory"]["include"] == "*/tenant.yaml"
