"""`make cluster`: a real Kubernetes API server to try things out with, until Ctrl-C. It has no node: pods are kept and not run.

Its folder gets `env`, which a shell sources to have KUBECONFIG set, and `kubectl`, `helm` and Hansa's programs on its PATH.
"""

import argparse
import fcntl
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from kubernetes.binaries import TOOLS, program, version
from kubernetes.cluster import Cluster, open_cluster

UP = """Kubernetes {version} is up at {url}; pods are kept and not run. In another terminal:

    source {env}
    kubectl get namespaces

Ctrl-C ends it and forgets all that is in it.
"""


@contextmanager
def serve(folder: Path) -> Iterator[Cluster]:
    """A cluster with controllers and without Hansa's definitions, made anew. Raises `BlockingIOError` when one runs in that folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
        tools = folder / "bin"
        tools.mkdir(parents=True)
        for name in ("kubectl", "helm"):
            (tools / name).symlink_to(program(name))
        with open_cluster(folder, definitions=False) as cluster:
            cluster.start_controllers()
            path = f"{quote(f'{tools}:{Path(sys.executable).parent}')}:$PATH"
            (folder / "env").write_text(f"export KUBECONFIG={quote(str(cluster.kubeconfig_admin))}\nexport PATH={path}\n")
            yield cluster


def main() -> int:
    """Serve until SIGINT or SIGTERM; give the exit status."""
    parser = argparse.ArgumentParser(description="Serve a Kubernetes API server without a node, until Ctrl-C.")
    parser.add_argument("folder", type=Path, help="what it keeps; emptied at the start")
    folder: Path = parser.parse_args().folder.resolve()
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.stdout.write(f"Looking for {', '.join(TOOLS)}; what is not there is built once, with Go (minutes).\n")
        sys.stdout.flush()
        with serve(folder) as cluster:
            signal.pthread_sigmask(signal.SIG_BLOCK, ends)
            sys.stdout.write(UP.format(version=version("k8s.io/kubernetes"), url=cluster.url, env=quote(str(folder / "env"))))
            sys.stdout.flush()
            signal.sigwait(ends)
    except BlockingIOError:
        sys.stderr.write(f"A cluster runs in {folder} already: source {folder / 'env'}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
