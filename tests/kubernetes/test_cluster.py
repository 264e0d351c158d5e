"""The cluster that other tests stand on: whose programs it runs, whom it lets in, that it is shared and leaves nothing behind."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from hansa_crds import KINDS
from kubernetes.__main__ import serve
from kubernetes.binaries import TOOLS, program, version
from kubernetes.cluster import USERS, Cluster, shared_cluster, unique

TESTS = Path(__file__).parents[1]


def test_the_programs_are_those_that_the_modules_pin(cluster: Cluster) -> None:
    said = json.loads(cluster.kubectl("version", "--output=json"))
    assert {said["clientVersion"]["gitVersion"], said["serverVersion"]["gitVersion"]} == {f"v{version('k8s.io/kubernetes')}"}
    etcd = subprocess.run([program("etcd"), "--version"], capture_output=True, text=True, check=True).stdout
    assert f"etcd Version: {version('go.etcd.io/etcd/server/v3')}" in etcd
    for name in ("helm", "helm4"):
        helm = subprocess.run([program(name), "version", "--template={{.Version}}"], capture_output=True, text=True, check=True).stdout
        assert helm == f"v{version(TOOLS[name].module)}"


def test_no_module_names_where_its_parts_are_fetched_from() -> None:
    for path in (Path(__file__).parent / "tools").rglob("go.*"):
        assert "://" not in path.read_text(), path


def test_a_folder_of_programs_takes_precedence_over_what_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etcd").write_text("")
    monkeypatch.setenv("HANSA_KUBE_BIN", str(tmp_path))
    assert program("etcd") == tmp_path / "etcd"
    assert program("kubectl").parent != tmp_path


def test_without_go_it_is_said_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("HANSA_KUBE_BIN", raising=False)
    with pytest.raises(RuntimeError, match="install Go, or let HANSA_KUBE_BIN name a folder"):
        program("etcd")


def test_hansas_kinds_are_served(cluster: Cluster) -> None:
    listed = cluster.kubectl("api-resources", "--categories=hansa", "--output=name").split()
    assert listed == sorted(f"{each.plural}.hansa.dev" for each in KINDS.values())


@pytest.mark.parametrize("user", sorted(USERS))
def test_a_user_may_do_nothing_until_a_role_is_bound_to_it(cluster: Cluster, namespace: str, user: str) -> None:
    assert "Forbidden" in cluster.kubectl("get", "agents", f"--namespace={namespace}", user=user, status=1)
    cluster.kubectl("create", "role", "reader", "--verb=list", "--resource=pods", f"--namespace={namespace}")
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": user, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [cluster.subject(user)],
    }
    cluster.kubectl("apply", "--filename=-", stdin=yaml.safe_dump(binding))
    assert cluster.kubectl("get", "pods", f"--namespace={namespace}", user=user)
    assert "Forbidden" in cluster.kubectl("get", "pods", "--namespace=default", user=user, status=1)


def test_another_process_of_the_run_shares_it_and_the_last_one_stops_it(tmp_path: Path) -> None:
    guest = (
        "import sys, pathlib; from kubernetes.cluster import shared_cluster\n"
        "with shared_cluster(pathlib.Path(sys.argv[1])) as found:\n"
        "    print(found.url, flush=True); sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", guest, str(tmp_path)]
    with shared_cluster(tmp_path) as found:
        pids = [found.pid("etcd"), found.pid("kube-apiserver")]
        other = subprocess.Popen(command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ})
        assert other.stdout is not None
        assert other.stdout.readline().strip() == found.url
    assert all(map(_runs, pids))
    other.communicate("\n", timeout=30)
    assert not any(map(_runs, pids))


def test_a_real_cluster_is_used_when_one_is_named(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANSA_TEST_KUBECONFIG", str(cluster.kubeconfig_admin))
    with shared_cluster(tmp_path) as found:
        assert found.url == cluster.url
        assert found.subject("operator")["kind"] == "ServiceAccount"
        assert "Forbidden" in found.kubectl("get", "agents", "--all-namespaces", user="operator", status=1)
    assert cluster.kubectl("get", "--raw=/readyz") == "ok"


def test_controllers_delete_a_namespace_and_what_lost_its_owner(tmp_path: Path) -> None:
    with serve(tmp_path / "cluster") as found:
        found.start_controllers()
        env = (tmp_path / "cluster/env").read_text()
        typed = f"{env}kubectl get namespaces && helm version && hansa --version"
        assert "kube-system" in subprocess.run(["bash", "-ec", typed], check=True, capture_output=True, text=True).stdout
        with pytest.raises(BlockingIOError), serve(tmp_path / "cluster"):
            pass
        name = unique("gone")
        found.kubectl("create", "namespace", name)
        found.kubectl("create", "configmap", "owner", f"--namespace={name}")
        owner = json.loads(found.kubectl("get", "configmap/owner", f"--namespace={name}", "--output=json"))
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
        owned = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owned", "ownerReferences": [reference]}}
        found.kubectl("create", f"--namespace={name}", "--filename=-", stdin=json.dumps(owned))
        found.kubectl("delete", "configmap/owner", f"--namespace={name}")
        found.kubectl("wait", "configmap/owned", f"--namespace={name}", "--for=delete", "--timeout=20s")
        found.kubectl("delete", "namespace", name, "--timeout=20s")
        pids = [found.pid(each) for each in ("etcd", "kube-apiserver", "kube-controller-manager")]
    started = time.monotonic()
    assert not any(map(_runs, pids))
    assert time.monotonic() - started < 1


def test_every_program_has_a_version() -> None:
    assert all(version(tool.module) for tool in TOOLS.values())


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
