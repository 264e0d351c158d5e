"""The page on objects in Kubernetes: its commands are typed against a cluster of its own, and what it says of refusals is what is said."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.pages import CLUSTERED, steps
from kubernetes.binaries import program
from kubernetes.cluster import open_cluster

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", sorted(CLUSTERED))
def test_the_commands_of_a_page_do_what_it_says(page: str, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "kubectl").symlink_to(program("kubectl"))
    (tools / "hansa").symlink_to(Path(sys.executable).with_name("hansa"))
    with open_cluster(tmp_path / "cluster", definitions=False) as cluster:
        env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "KUBECONFIG": str(cluster.kubeconfig_admin)}
        said = ""
        for step in steps(DOCS / f"{page}.md"):
            if step.file is not None:
                (tmp_path / step.file).write_text(step.text)
                continue
            command = ["bash", "-euo", "pipefail", "-c", step.text]
            ended = subprocess.run(
                command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=50
            )
            said += ended.stdout
            assert ended.returncode == 0, ended.stdout
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", (DOCS / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)
    assert all(line in said for language, block in blocks if not language for line in block.splitlines()), said
