"""The programs of a real Kubernetes control plane for tests, built once from the Go modules beside this file and kept in the user's cache.

`program(name)` gives one, from the first of these that has it:

1. the folder that HANSA_KUBE_BIN names
2. the cache, `$XDG_CACHE_HOME/hansa/kubernetes` (by default below `~/.cache`), by the versions that `go.mod` and `go.sum` pin
3. a build with Go, which takes eleven minutes of a core for all of them, and seconds after that; whoever else asks meanwhile waits for it

Run as a program it builds what is not there yet, one after the other; `make test` starts that in the background before anything else.
Standard library only: it runs before anything is installed.
"""

import argparse
import fcntl
import hashlib
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

MODULES = Path(__file__).parent / "tools"
BUILD_SECONDS = 3600.0
"""Longest time that one program may take to build, on a machine that has other things to do."""

_COMPONENT = "k8s.io/component-base/version"
_CHARTUTIL = "helm.sh/helm/v3/pkg/chartutil"


class Tool(NamedTuple):
    """A program: the folder of its Go module, the module and the package that it is in."""

    folder: str
    module: str
    package: str


TOOLS: Mapping[str, Tool] = MappingProxyType(
    {
        "etcd": Tool("etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3"),
        "kube-apiserver": Tool("kube", "k8s.io/kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
        "kubectl": Tool("kube", "k8s.io/kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
        "kube-controller-manager": Tool("kube", "k8s.io/kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        "helm": Tool("helm", "helm.sh/helm/v3", "helm.sh/helm/v3/cmd/helm"),
        "helm4": Tool("helm", "helm.sh/helm/v4", "helm.sh/helm/v4/cmd/helm"),
    }
)
"""All programs, in the order in which they are wanted."""


def version(module: str) -> str:
    """The version of a module that its go.mod pins, without the `v`."""
    folder = next(each.folder for each in TOOLS.values() if each.module == module)
    found = re.search(rf"^\s*(?:require )?{re.escape(module)} v(\S+)", (MODULES / folder / "go.mod").read_text(), re.MULTILINE)
    assert found, f"{folder}/go.mod does not pin {module}"
    return found[1]


def program(name: str) -> Path:
    """Where a program is; it is built first if need be."""
    given = os.environ.get("HANSA_KUBE_BIN")
    if given and (Path(given) / name).is_file():
        return Path(given) / name
    path = _place(name)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent / "lock"):
            if not path.is_file():
                _build(name, path)
    return path


def _place(name: str) -> Path:
    tool = TOOLS[name]
    pinned = [(MODULES / tool.folder / each).read_bytes() for each in ("go.mod", "go.sum")]
    key = hashlib.sha256(b"\0".join([*pinned, _flags(name).encode()])).hexdigest()[:12]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "hansa" / "kubernetes" / f"{name}-{version(tool.module)}-{platform.system()}-{platform.machine()}-{key}".lower()


def _build(name: str, path: Path) -> None:
    """Build a program in its own place, whole or not at all."""
    made = path.with_suffix(f".{os.getpid()}")
    command = ["go", "build", "-buildvcs=false", "-mod=readonly", "-trimpath", "-ldflags", _flags(name), "-o", str(made)]
    try:
        tool = TOOLS[name]
        ended = subprocess.run(
            [*command, tool.package],
            cwd=MODULES / tool.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=BUILD_SECONDS,
        )
        if ended.returncode:
            raise RuntimeError(f"{name} was not built (HANSA_KUBE_BIN may name a folder that has it):\n{ended.stderr}")
        made.rename(path)
    except FileNotFoundError as missing:
        raise RuntimeError(f"{name} can't be built without Go: install Go, or let HANSA_KUBE_BIN name a folder that has it") from missing
    finally:
        made.unlink(missing_ok=True)


def _flags(name: str) -> str:
    """What the linker writes into a program: without its version a control plane is none that `kubectl version` can read."""
    kube = version("k8s.io/kubernetes")
    major, minor, _ = kube.split(".")
    values = {f"{_COMPONENT}.gitVersion": f"v{kube}", f"{_COMPONENT}.gitMajor": major, f"{_COMPONENT}.gitMinor": minor}
    if TOOLS[name].folder == "helm":
        values = {f"{TOOLS[name].module}/internal/version.version": f"v{version(TOOLS[name].module)}"}
    if name == "helm":  # its successor reads this from how it was built
        values |= {f"{_CHARTUTIL}.k8sVersionMajor": major, f"{_CHARTUTIL}.k8sVersionMinor": minor}
    return " ".join(["-s", "-w", *(f"-X {key}={value}" for key, value in values.items())])


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One build at a time on this machine: two at once would compile the same packages twice."""
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Build what is missing; give the exit status."""
    parser = argparse.ArgumentParser(description="Build the programs of a Kubernetes control plane for tests.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones (default: all): {', '.join(TOOLS)}")
    names: list[str] = parser.parse_args().names
    if unknown := set(names) - TOOLS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(TOOLS)}")
    for name in names or TOOLS:
        started = time.monotonic()
        sys.stdout.write(f"{program(name)} ({time.monotonic() - started:.0f} s)\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
