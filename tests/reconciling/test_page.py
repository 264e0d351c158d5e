"""The page on the operator: its commands are typed against a cluster and a platform of its own, and leave nothing behind."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.pages import OPERATED, steps
from kubernetes.binaries import program
from kubernetes.cluster import Cluster, open_cluster
from rules.source_tree import ROOT

DOCS = ROOT / "docs"
UP = "hansa up --data .hansa --detach"
ADDRESS = "http://127.0.0.1:7420"


@pytest.fixture
def cluster_with_controllers(tmp_path: Path) -> Iterator[Cluster]:
    with open_cluster(tmp_path / "cluster", definitions=False) as cluster:
        cluster.start_controllers()
        yield cluster


@pytest.mark.timeout(120, func_only=True)
@pytest.mark.parametrize("page", sorted(OPERATED))
def test_the_commands_of_a_page_do_what_it_says(page: str, cluster_with_controllers: Cluster, tmp_path: Path) -> None:
    cluster = cluster_with_controllers
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "kubectl").symlink_to(program("kubectl"))
    for name in ("hansa", "hansa-operator", "python3"):
        (tools / name).symlink_to(Path(sys.executable).with_name(name))
    (tmp_path / "gitops").symlink_to(ROOT / "gitops")
    env = {name: value for name, value in os.environ.items() if not name.startswith("HANSA_")}
    env |= {"PATH": f"{tools}:{os.environ['PATH']}", "KUBECONFIG": str(cluster.kubeconfig_admin), "HANSA_OPERATOR_PORT": "0"}

    def typed(commands: str) -> str:
        command = ["bash", "-euo", "pipefail", "-c", commands]
        ended = subprocess.run(
            command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=70
        )
        log = tmp_path / "operator.log"
        assert ended.returncode == 0, f"{commands}\n{ended.stdout}\n{log.read_text()[-3000:] if log.exists() else ''}"
        return ended.stdout

    said, address = "", ""
    for step in steps(DOCS / f"{page}.md"):
        if step.file is not None:
            (tmp_path / step.file).write_text(step.text)
            continue
        said += typed(step.text.replace(UP, "hansa up --data .hansa --port 0 --detach").replace(ADDRESS, address))
        if UP in step.text:
            address = typed(
                """hansa status --data .hansa --output json | python3 -c 'import json, sys; print(json.load(sys.stdin)["url"])'"""
            ).strip()
    assert "agent.hansa.dev/greeter condition met" in said
    assert "exactly one of alias, ref must be set" in said
    assert "No resources found" in cluster.kubectl("get", "hansa", "-A")
    cluster.kubectl("wait", "namespace/shop", "--for=delete", "--timeout=20s")
