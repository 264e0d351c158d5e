"""The operator as it is shipped, as processes, between a real API server under exactly its ClusterRole and a real control plane.

Both are reached through a proxy that can misbehave. One cluster and one operator for many tests: each has a tenant of its own.
"""

import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml

from doubles.fault_proxy import FaultProxy, fault_proxy
from kubernetes.cluster import Cluster, unique
from rules.source_tree import ROOT

RBAC = ROOT / "gitops/platform/chart/files/operator-rbac.yaml"
ADMISSION = ROOT / "gitops/platform/chart/files/operator-admission.yaml"
"""Has objects held from the start. A rig is without it, so that most tests have the operator do that."""
NAMESPACE = "hansa-system"
PATIENCE = 25.0
QUICK = {
    "HANSA_OPERATOR_LEASE_SECONDS": "3",
    "HANSA_OPERATOR_RENEW_SECONDS": "0.5",
    "HANSA_OPERATOR_LOOK_SECONDS": "1",
    "HANSA_OPERATOR_STATE_SECONDS": "1",
    "HANSA_OPERATOR_BACKOFF_LEAST_SECONDS": "0.2",
    "HANSA_OPERATOR_BACKOFF_MOST_SECONDS": "5",
    "HANSA_OPERATOR_LOG_FORMAT": "text",
    "HANSA_OPERATOR_WORKER_DEPLOYMENT": "hansa-worker",
    "HANSA_OPERATOR_PORT": "0",
}


class OperatorProcess:
    """A running `hansa-operator`; what it says goes to a file."""

    def __init__(self, environ: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as sink:
            command = [sys.executable, "-m", "hansa_operator"]
            self._process = subprocess.Popen(command, env={**os.environ, **environ}, stdout=sink, stderr=sink)

    @property
    def pid(self) -> int:
        return self._process.pid

    def says(self, text: str) -> bool:
        """Whether it has logged something."""
        return text in self.log.read_text()

    def wait_for(self, text: str, patience: float = PATIENCE) -> None:
        """Wait until it has logged something."""
        until(lambda: self.says(text) or self._process.poll() is not None, patience, what=f"{text!r} in {self.log}")
        assert self.says(text), self.log.read_text()[-3000:]

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait(10)

    def terminate(self) -> int:
        """SIGTERM, and the exit status."""
        self._process.terminate()
        return self._process.wait(20)

    def stop(self) -> None:
        """End it, however it is."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()


class Rig:
    """See the module. `kube` and `rest` are the proxies; `admin` and `platform` are clients around them."""

    def __init__(
        self, cluster: Cluster, folder: Path, *, kube: FaultProxy, rest: FaultProxy, admin: httpx2.Client, platform: httpx2.Client
    ) -> None:
        self.cluster = cluster
        self.folder = folder
        self.kube = kube
        self.rest = rest
        self.admin = admin
        self.platform = platform
        self.operators: list[OperatorProcess] = []

    def start(self, *, behind: bool = True, **extra: str) -> OperatorProcess:
        """One more operator. `behind`: it goes through the proxies."""
        name = f"operator-{len(self.operators)}"
        config = yaml.safe_load(self.cluster.kubeconfig("operator").read_text())
        if behind:
            config["clusters"][0]["cluster"] = {"server": self.kube.url}
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        environ = {
            **QUICK,
            "HANSA_OPERATOR_URL": self.rest.url if behind else str(self.platform.base_url).rstrip("/"),
            "HANSA_OPERATOR_KEY_FILE": str(self.folder / "key"),
            "HANSA_OPERATOR_KUBECONFIG": str(path),
            "HANSA_OPERATOR_NAMESPACE": NAMESPACE,
            "HANSA_OPERATOR_IDENTITY": name,
            **extra,
        }
        process = OperatorProcess(environ, self.folder / f"{name}.log")
        self.operators.append(process)
        return process

    # ------------------------------------------------------------------------------------------------------- objects

    def put(self, kind: str, name: str, spec: Mapping[str, Any], namespace: str = "", **metadata: Any) -> str:
        """Server-side apply of an object of ours; where it is."""
        path = place(kind, name, namespace)
        meta = {"name": name, **({"namespace": namespace} if namespace else {}), **metadata}
        body = {"apiVersion": "hansa.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": dict(spec)}
        headers = {"content-type": "application/apply-patch+yaml"}
        answer = self.admin.patch(f"{path}?fieldManager=tests&force=true", json=body, headers=headers)
        assert answer.is_success, answer.text
        return path

    def patch(self, path: str, patch: Mapping[str, Any]) -> None:
        """A merge patch."""
        answer = self.admin.patch(path, json=patch, headers={"content-type": "application/merge-patch+json"})
        assert answer.is_success, answer.text

    def get(self, path: str) -> dict[str, Any]:
        """An object; empty if it is not there."""
        answer = self.admin.get(path)
        assert answer.status_code in (200, 404), answer.text
        return answer.json() if answer.status_code == 200 else {}

    def leader(self) -> str:
        """Who holds the Lease."""
        lease = self.get(f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/hansa-operator")
        return str(lease.get("spec", {}).get("holderIdentity", ""))

    def delete(self, path: str) -> None:
        answer = self.admin.delete(path)
        assert answer.status_code in (200, 202, 404), answer.text

    def condition(self, path: str, type_: str = "Ready") -> tuple[str, str]:
        """Status and reason of a condition; two empty texts if there is none."""
        for each in self.get(path).get("status", {}).get("conditions", ()):
            if each["type"] == type_:
                return each["status"], each["reason"]
        return "", ""

    def comes(self, path: str, status: str, reason: str = "", *, type_: str = "Ready", patience: float = PATIENCE) -> None:
        """Wait until a condition of the object's present generation is so."""

        def so() -> bool:
            found = self.get(path)
            judged = found.get("status", {}).get("observedGeneration") == found.get("metadata", {}).get("generation")
            now = self.condition(path, type_)
            return judged and now[0] == status and reason in ("", now[1])

        until(so, patience, what=lambda: f"{path} {type_}={status}/{reason}: {self.get(path).get('status')}\n{self.said()}")

    def goes(self, path: str, patience: float = PATIENCE) -> None:
        """Wait until an object is gone."""
        until(lambda: not self.get(path), patience, what=lambda: f"{path} gone: {self.get(path)}\n{self.said()}")

    def said(self) -> str:
        """What the operators said last."""
        return "\n".join(f"--- {each.log.name}\n{each.log.read_text()[-1500:]}" for each in self.operators[-3:])

    def tenant(self, **spec: Any) -> str:
        """A tenant of one's own with its namespace of the same name, ready; its name."""
        name = unique("t")
        self.comes(self.put("Tenant", name, spec), "True", "NamespacesMade", type_="NamespacesReady")
        return name

    def provider(self, namespace: str, name: str = "models", **spec: Any) -> str:
        """A ModelProvider with the alias `small`; where it is."""
        return self.put(
            "ModelProvider", name, {"plugin": "scripted", "models": [{"name": "tiny", "aliases": ["small"]}], **spec}, namespace
        )

    def agent(self, namespace: str, name: str = "one", **spec: Any) -> str:
        """An Agent that thinks with `small`; where it is."""
        return self.put("Agent", name, {"instructions": "Answer.", "model": {"alias": "small"}, **spec}, namespace)

    def stored(self, tenant: str, kind: str, name: str) -> dict[str, Any]:
        """An object as the control plane has it; empty if it has none."""
        answer = self.platform.get(f"/v1/objects/{kind}/{name}", headers={"hansa-tenant": tenant})
        return answer.json() if answer.status_code == 200 else {}

    def page(self, path: str) -> tuple[int, str]:
        """What the newest operator answers to a probe or to Prometheus."""
        found = re.findall(r"listens on (127\.0\.0\.1:\d+)", self.operators[-1].log.read_text())
        answer = httpx2.get(f"http://{found[-1]}{path}", trust_env=False, verify=False)
        return answer.status_code, answer.text

    def events(self, namespace: str, name: str) -> list[str]:
        """Reasons of the Events about an object."""
        items = self.get(f"/api/v1/namespaces/{namespace}/events").get("items", ())
        return [each["reason"] for each in items if each["involvedObject"]["name"] == name]


def place(kind: str, name: str, namespace: str = "") -> str:
    """Where the API server keeps an object of ours."""
    inside = f"/namespaces/{namespace}" if namespace else ""
    return f"/apis/hansa.dev/v1alpha1{inside}/{kind.lower()}s/{name}"


def until(true: Callable[[], bool], patience: float = PATIENCE, *, what: str | Callable[[], str] = "it") -> None:
    """Wait for something to be so. It looks less often the longer it waits, to leave the processors to what it waits for."""
    begun = time.monotonic()
    while not true():
        if time.monotonic() > begun + patience:
            raise AssertionError(f"not so: {what if isinstance(what, str) else what()}")
        time.sleep(min(0.05 + (time.monotonic() - begun) / 20, 0.2))


def grant(cluster: Cluster) -> None:
    """Give the operator's user what the shipped roles give, and nothing else."""
    cluster.kubectl("create", "namespace", NAMESPACE)
    cluster.kubectl("apply", "-n", NAMESPACE, "-f", str(RBAC))
    subject = cluster.subject("operator")
    flag = f"--group={subject['name']}" if subject["kind"] == "Group" else f"--serviceaccount={subject['namespace']}:{subject['name']}"
    cluster.kubectl("create", "clusterrolebinding", "hansa-operator", "--clusterrole=hansa-operator", flag)
    cluster.kubectl("create", "rolebinding", "hansa-operator", "--role=hansa-operator", flag, "-n", NAMESPACE)


@contextmanager
def open_rig(cluster: Cluster, folder: Path, url: str, key: str) -> Iterator[Rig]:
    """A rig over a cluster of one's own and a control plane at `url`, in which the operator has the API key `key`."""
    grant(cluster)
    (folder / "key").write_text(key)
    trust = ssl.create_default_context(cafile=cluster.ca)
    headers = {"authorization": f"Bearer {key}"}
    with (
        fault_proxy(cluster.url, trust) as kube,
        fault_proxy(url) as rest,
        cluster.client() as admin,
        httpx2.Client(base_url=url, headers=headers, trust_env=False, timeout=30, verify=False) as platform,
    ):
        rig = Rig(cluster, folder, kube=kube, rest=rest, admin=admin, platform=platform)
        try:
            yield rig
        finally:
            for operator in rig.operators:
                operator.stop()
