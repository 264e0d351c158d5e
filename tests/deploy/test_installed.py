"""From nothing: a cluster without Hansa's definitions, in which the pages on deploying are typed, command by command."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.charts import HELMS, ROOT, VALUES
from docs.pages import DEPLOYED, steps
from kubernetes.binaries import program
from kubernetes.cluster import open_cluster

PAGES = ("deploy", *sorted(DEPLOYED - {"deploy"}))
"""In this order: the first one begins with nothing."""
MAY = (
    *("list agents.hansa.dev --all-namespaces", "patch tenants.hansa.dev --subresource status"),
    *("create leases --namespace default", "get deployments.apps --namespace default"),
)
MAY_NOT = (
    *("list secrets --all-namespaces", "create pods --namespace default", "delete agents.hansa.dev --all-namespaces"),
    *("create leases --namespace kube-system", "create clusterrolebindings"),
)
# Before a definition goes the API server deletes its objects, and sometimes never comes to the end of it: here there are none to delete.
WITHOUT_DEFINITIONS = """
kubectl delete customresourcedefinitions --all --wait=false
for definition in $(kubectl get customresourcedefinitions --output name); do
  kubectl patch $definition --type merge --patch '{"metadata": {"finalizers": null}}' || true  # some are gone by now
done
test -z "$(kubectl get customresourcedefinitions --output name)"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of what a page's commands need of a clone, and a cluster that has never heard of Hansa."""
    place = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "gitops", place / "gitops")
    (place / "bin").mkdir()
    for name in ("kubectl", *HELMS):
        (place / "bin" / name).symlink_to(program(name))
    with open_cluster(tmp_path_factory.mktemp("cluster"), definitions=False) as found:
        (place / "kubeconfig").symlink_to(found.kubeconfig_admin)
        yield place


def typed(place: Path, commands: str) -> str:
    """What a shell answers to commands; fails when one of them does. There are no nodes, so a hook of Helm would never end."""
    own = {name: text for name, text in os.environ.items() if not name.startswith(("HANSA_", "XDG_", "HELM_", "KUBE"))}
    path = f"{place / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = own | {"PATH": path, "KUBECONFIG": str(place / "kubeconfig"), "HOME": str(place), "NO_COLOR": "1"}
    commands = re.sub(r"\b(helm4?) (install|upgrade) ", r"\1 \2 --no-hooks ", commands)
    shell = ["bash", "-euo", "pipefail", "-c", commands]
    done = subprocess.run(shell, cwd=place, env=env, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, f"{commands}\nended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.timeout(180, func_only=True)
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_do_what_it_says(page: str, place: Path) -> None:
    found = steps(ROOT / f"docs/{page}.md")
    assert found
    for step in found:
        if step.file is not None:
            (place / step.file).write_text(step.text)
        else:
            typed(place, step.text)
    if page == "deploy":
        assert "deployed" in typed(place, "helm status hansa --namespace hansa")
        assert (place / "made").stat().st_mode & 0o777 == 0o700
        typed(place, "helm uninstall hansa --namespace hansa")
        assert "agents.hansa.dev" in typed(place, "kubectl get crds --output name"), "what Helm leaves, stays"


def test_a_command_that_fails_is_seen(place: Path) -> None:
    with pytest.raises(AssertionError, match="NotFound"):
        typed(place, "kubectl get secret nobody-of-this-name")


@pytest.mark.parametrize("helm", HELMS)
def test_what_either_helm_installs_from_nothing_is_there_is_upgraded_by_helm_4_and_goes(helm: str, place: Path) -> None:
    """Definitions, and the rights that the chart binds, asked of the API server as the operator's account."""
    typed(place, WITHOUT_DEFINITIONS)
    release = f"own gitops/platform/chart --namespace default --values {VALUES / 'defaults.yaml'}"
    typed(place, f"{helm} install {release}")
    assert typed(place, "kubectl get customresourcedefinitions --output name").count("hansa.dev") == 5
    asked = "kubectl auth can-i {} --as system:serviceaccount:default:own-hansa-operator"
    for what in MAY:
        assert typed(place, asked.format(what)).strip() == "yes", what
    for what in MAY_NOT:
        assert typed(place, f"{asked.format(what)} || true").strip().startswith("no"), what
    replicas = "kubectl get deployment own-hansa-worker-default --namespace default --output jsonpath={.spec.replicas}"
    assert typed(place, replicas) == "2"
    typed(place, f"helm4 upgrade {release} --set workerDefaults.replicas=3")
    assert typed(place, replicas) == "3"
    typed(place, "helm4 uninstall own --namespace default")
    left = typed(place, "kubectl get deployments,clusterroles --namespace default --output name")
    assert "hansa-" not in left
    assert typed(place, "kubectl get customresourcedefinitions --output name").count("hansa.dev") == 5
