"""What Helm and kustomize make of gitops/platform, as objects; each rendering once for all tests of a process."""

import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from kubernetes.binaries import program

ROOT = Path(__file__).resolve().parents[2]
PLATFORM = ROOT / "gitops/platform"
CHART = PLATFORM / "chart"
VALUES = Path(__file__).parent / "values"
SETS = tuple(sorted(path.stem for path in VALUES.glob("*.yaml")))
REGIONS = ("north", "south", "west")
HELMS = ("helm", "helm4")
"""Both that people have. What is rendered is the same, so only what may differ is asked of both."""

Object = dict[str, Any]


def helm(*arguments: str, status: int = 0, by: str = "helm") -> str:
    """What Helm says, on both of its streams; `status`: the exit status it must have; `by`: which of the HELMS."""
    done = subprocess.run([str(program(by)), *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status, f"{by} {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@functools.cache
def templated(values: str, by: str = "helm") -> str:
    """The chart with a set of values, as text."""
    command = ["template", "hansa", str(CHART), "--namespace=hansa", "--kube-version=1.36.3", f"--values={VALUES / f'{values}.yaml'}"]
    return helm(*command, by=by)


@functools.cache
def kustomized(folder: str) -> str:
    """A folder of the repository as kustomize makes it, as text."""
    command = [str(program("kubectl")), "kustomize", str(ROOT / folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def objects(text: str) -> list[Object]:
    """The objects of a text, anew for whoever wants to break one."""
    return [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]


def chart(values: str) -> list[Object]:
    """The chart's objects with a set of values."""
    return objects(templated(values))


def of_kind(found: list[Object], *kinds: str) -> list[Object]:
    """Objects of these kinds."""
    return [each for each in found if each["kind"] in kinds]


def named(found: list[Object], kind: str, name: str) -> Object:
    """The object of this kind and name."""
    return next(each for each in found if each["kind"] == kind and each["metadata"]["name"] == name)


def templates(found: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every pod that would be made: (kind/name, its template)."""
    for each in of_kind(found, "Deployment", "StatefulSet", "Job"):
        yield f"{each['kind']}/{each['metadata']['name']}", each["spec"]["template"]


def containers(found: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    """Every container: (kind/name, its pod's template, the container)."""
    for name, template in templates(found):
        for container in template["spec"]["containers"]:
            yield name, template, container


def variables(container: Object) -> dict[str, str]:
    """What is written into a container's environment."""
    return {each["name"]: str(each.get("value", "")) for each in container.get("env", [])}
