"""A real Kubernetes API server for tests: etcd, kube-apiserver and, where a test asks, kube-controller-manager, on free ports.

There is no node: pods, Deployments and the like can be written and read, and nothing runs them. `shared_cluster` gives all processes of
one test run the same cluster; `open_cluster` gives one of one's own, to be broken. HANSA_TEST_KUBECONFIG names a real cluster to be shared
instead; its user needs a client certificate or a token, and may do everything.

Warning: kube-apiserver ends before etcd: one whose etcd is gone never ends by itself.
"""

import base64
import fcntl
import json
import os
import signal
import ssl
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import httpx2
import yaml

from hansa_crds.generate import definitions
from kubernetes.binaries import program
from server.authority import Authority
from stack import free_port

BOOT_SECONDS = 60.0
STOP_SECONDS = 3.0
COLLECTED = "300"
"""How much garbage Go's collector lets come together, in percent of what is live: it takes a fifth of the processor time of a start."""
ATTEMPTS = 3
"""A port that was free may be another's a moment later."""

USERS: Mapping[str, str] = MappingProxyType({"operator": "hansa:operators", "editor": "hansa:editors", "stranger": "hansa:strangers"})
"""Users with a token, and the group of each. None may do anything until a test binds a role to it (`subject`)."""

CONTROLLERS = ",".join(
    f"{name}-controller" for name in ("garbage-collector", "namespace", "serviceaccount", "resourcequota", "clusterrole-aggregation")
)


class Cluster:
    """A cluster that runs. All there is to know of it stands in its folder, so that other processes can use it too."""

    def __init__(self, folder: Path) -> None:
        known: dict[str, Any] = json.loads((folder / "cluster.json").read_text())
        self.folder = folder
        self.url: str = known["url"]
        self.ca = Path(known["ca"])
        self.kubeconfig_admin = folder / "admin.kubeconfig"
        self._subjects: dict[str, dict[str, str]] = known["subjects"]

    def kubeconfig(self, user: str) -> Path:
        """The file with which a user of `USERS`, or `admin`, comes in."""
        return self.folder / f"{user}.kubeconfig"

    def subject(self, user: str) -> dict[str, str]:
        """A user of `USERS` as role bindings name it: by its group, or in a real cluster as a service account."""
        return self._subjects[user]

    def kubectl(self, *arguments: str, user: str = "admin", stdin: str = "", status: int | None = 0, env: Mapping[str, str] = {}) -> str:
        """What kubectl says, on both of its streams; `status`: the exit status it must have, None: any."""
        command = [str(program("kubectl")), f"--kubeconfig={self.kubeconfig(user)}", f"--cache-dir={self.folder / 'discovery'}", *arguments]
        ended = subprocess.run(
            command,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=BOOT_SECONDS,
            env={**os.environ, **env},
        )
        assert status is None or ended.returncode == status, f"kubectl {' '.join(arguments)}: status {ended.returncode}\n{ended.stdout}"
        return ended.stdout

    def client(self, user: str = "admin") -> httpx2.Client:
        """A client of the API server as a user, for requests that would be slow by kubectl. Close it."""
        config = yaml.safe_load(self.kubeconfig(user).read_text())["users"][0]["user"]
        trust = ssl.create_default_context(cafile=self.ca)
        if "token" not in config:
            trust.load_cert_chain(config["client-certificate"], config["client-key"])
        headers = {"authorization": f"Bearer {config['token']}"} if "token" in config else {}
        return httpx2.Client(base_url=self.url, verify=trust, headers=headers, trust_env=False, timeout=30)

    @contextmanager
    def namespace(self, prefix: str = "test") -> Iterator[str]:
        """A namespace of one's own. Afterwards it is deleted, which only controllers bring to its end; nobody waits for it."""
        name = unique(prefix)
        with self.client() as client:
            made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            client.post("/api/v1/namespaces", json=made).raise_for_status()
            try:
                yield name
            finally:
                client.delete(f"/api/v1/namespaces/{name}")

    def install(self, client: httpx2.Client, definition: str) -> str:
        """Write a definition, given as YAML, and wait until it is established; its address."""
        place = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{yaml.safe_load(definition)['metadata']['name']}"
        headers = {"content-type": "application/apply-patch+yaml"}
        answer = client.patch(f"{place}?fieldManager=tests&force=true", content=definition, headers=headers)
        assert answer.is_success, answer.text
        _until(lambda: _established(client.get(place).json()), f"{place} is not established")
        return place

    def install_definitions(self) -> None:
        """Write all of Hansa's definitions, as they are generated now, and wait until they are served."""
        with self.client() as client:
            places = [self.install(client, text) for text in definitions().values()]
            served = len(places) * 2  # each with its status
            _until(lambda: len(client.get("/apis/hansa.dev/v1alpha1").json().get("resources", ())) == served, "the kinds are not served")

    def start_controllers(self) -> None:
        """Have garbage collected, namespaces deleted, service accounts made, quotas counted and roles put together; once is enough."""
        with _locked(self.folder / "lock"):
            if "kube-controller-manager" in _processes(self.folder) or not (self.folder / "pids").is_file():
                return
            port = free_port()
            command = [str(program("kube-controller-manager")), f"--kubeconfig={self.kubeconfig_admin}", f"--controllers={CONTROLLERS}"]
            command += ["--bind-address=127.0.0.1", f"--secure-port={port}", f"--cert-dir={self.folder / 'controllers'}"]
            command += ["--leader-elect=false", "--kube-api-qps=200", "--kube-api-burst=400", "--profiling=false"]
            pid = _started(self.folder, "kube-controller-manager", command)
            unchecked = ssl.create_default_context()
            unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
            log = self.folder / "kube-controller-manager.log"
            with httpx2.Client(base_url=f"https://127.0.0.1:{port}", verify=unchecked, trust_env=False, timeout=5) as client:
                _until(lambda: client.get("/healthz").is_success, "the controllers are not up", log=(pid, log))

    def pid(self, name: str) -> int:
        """The process of `etcd`, `kube-apiserver` or `kube-controller-manager`."""
        return _processes(self.folder)[name]

    def stop(self) -> None:
        """End its processes, the last one that was started first: TERM, three seconds, KILL."""
        for pid in reversed(_processes(self.folder).values()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGTERM)
                end = time.monotonic() + STOP_SECONDS
                while _alive(pid) and time.monotonic() < end:
                    time.sleep(0.05)
                if _alive(pid):
                    os.kill(pid, signal.SIGKILL)
        (self.folder / "pids").unlink(missing_ok=True)


@contextmanager
def open_cluster(folder: Path, *, definitions: bool = True, options: Sequence[str] = ()) -> Iterator[Cluster]:
    """A cluster of one's own over an empty folder; `definitions`: with those of Hansa. `options` are further ones of kube-apiserver."""
    cluster = _booted(folder, options)
    try:
        if definitions:
            cluster.install_definitions()
        yield cluster
    finally:
        cluster.stop()


@contextmanager
def shared_cluster(root: Path) -> Iterator[Cluster]:
    """The cluster of a test run, with Hansa's definitions; `root` is a folder that all processes of the run know.

    The first to come starts it and the last to leave stops it. Who died without leaving is not waited for.
    """
    folder, users = root / "cluster", root / "cluster.users"
    with _locked(root / "cluster.lock"):
        if not _using(users):
            given = os.environ.get("HANSA_TEST_KUBECONFIG")
            if folder.is_symlink():
                Cluster(folder).stop()
            fresh = root / unique("cluster")
            cluster = _joined(fresh, Path(given)) if given else _booted(fresh, ())
            folder.unlink(missing_ok=True)
            folder.symlink_to(cluster.folder)  # whoever comes next after a failure stops it
            cluster.install_definitions()
        users.write_text(json.dumps([*_using(users), os.getpid()]))
        found = Cluster(folder)
    try:
        yield found
    finally:
        with _locked(root / "cluster.lock"):
            left = [pid for pid in _using(users) if pid != os.getpid()]
            users.write_text(json.dumps(left))
            if not left:
                found.stop()


def unique(prefix: str) -> str:
    """A name that no other test has."""
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


def _booted(folder: Path, options: Sequence[str]) -> Cluster:
    """Start a cluster, on other ports if those that were free are taken meanwhile."""
    for name in ("etcd", "kube-apiserver", "kubectl"):
        program(name)
    for attempt in range(ATTEMPTS):
        place = folder / f"boot-{attempt}"
        place.mkdir(parents=True)
        try:
            return _boot(place, options)
        except BaseException as failed:  # whatever it was, nothing that was started may stay
            Cluster(place).stop()
            if attempt == ATTEMPTS - 1 or not isinstance(failed, TimeoutError):
                raise
    raise AssertionError


def _boot(folder: Path, options: Sequence[str]) -> Cluster:
    authority = Authority(folder)
    serving, signing, admin = authority.issue("serving"), authority.issue("signing"), authority.issue("admin", group="system:masters")
    tokens = {user: uuid.uuid4().hex for user in USERS}
    (folder / "tokens.csv").write_text("".join(f'{tokens[user]},{user},{user},"{group}"\n' for user, group in USERS.items()))
    port, etcd = free_port(), f"http://127.0.0.1:{free_port()}"
    _known(folder, f"https://127.0.0.1:{port}", authority.ca_file, {user: _group(each) for user, each in USERS.items()})
    cluster = Cluster(folder)
    _write_kubeconfig(cluster, "admin", {"client-certificate": str(admin[0]), "client-key": str(admin[1])})
    for user, token in tokens.items():
        _write_kubeconfig(cluster, user, {"token": token})
    peer = f"http://127.0.0.1:{free_port()}"
    command = [str(program("etcd")), f"--data-dir={folder / 'etcd'}", "--name=test", "--unsafe-no-fsync", "--log-level=warn"]
    command += [f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}", f"--listen-peer-urls={peer}"]
    pid = _started(folder, "etcd", [*command, f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=test={peer}"])
    with httpx2.Client(trust_env=False, verify=False, timeout=5) as client:
        _until(lambda: client.get(f"{etcd}/health").is_success, "etcd is not up", log=(pid, folder / "etcd.log"))
    command = [str(program("kube-apiserver")), f"--etcd-servers={etcd}", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"]
    command += [f"--secure-port={port}", f"--tls-cert-file={serving[0]}", f"--tls-private-key-file={serving[1]}"]
    command += [f"--client-ca-file={authority.ca_file}", f"--token-auth-file={folder / 'tokens.csv'}", "--authorization-mode=RBAC"]
    command += ["--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={signing[0]}"]
    command += [f"--service-account-signing-key-file={signing[1]}", "--service-cluster-ip-range=10.0.0.0/24"]
    command += ["--disable-admission-plugins=ServiceAccount", "--profiling=false", *options]
    pid = _started(folder, "kube-apiserver", command)
    with cluster.client() as client:
        ready = ("/readyz", "/api/v1/namespaces/default")
        for path in ready:
            _until(lambda path=path: client.get(path).is_success, f"{path} does not answer", log=(pid, folder / "kube-apiserver.log"))
    return cluster


def _joined(folder: Path, kubeconfig: Path) -> Cluster:
    """A real cluster, with service accounts in the place of users."""
    config = yaml.safe_load(kubeconfig.read_text())
    context = _named(config["contexts"], config["current-context"])["context"]
    server, user = _named(config["clusters"], context["cluster"])["cluster"], _named(config["users"], context["user"])["user"]
    folder.mkdir(parents=True)
    if "token" in user:
        admin = {"token": user["token"]}
    else:
        try:
            admin = {each: str(_filed(user, each, folder)) for each in ("client-certificate", "client-key")}
        except KeyError:
            raise ValueError(f"HANSA_TEST_KUBECONFIG: the user in {kubeconfig} needs a token or a client certificate") from None
    namespace = "hansa-tests"
    accounts = {user: {"kind": "ServiceAccount", "name": user, "namespace": namespace} for user in USERS}
    _known(folder, server["server"], _filed(server, "certificate-authority", folder), accounts)
    cluster = Cluster(folder)
    _write_kubeconfig(cluster, "admin", admin)
    cluster.kubectl("create", "namespace", namespace, status=None)
    for name in USERS:
        cluster.kubectl("create", "serviceaccount", name, f"--namespace={namespace}", status=None)
        token = cluster.kubectl("create", "token", name, f"--namespace={namespace}", "--duration=4h").strip()
        _write_kubeconfig(cluster, name, {"token": token})
    return cluster


def _known(folder: Path, url: str, ca: Path, subjects: Mapping[str, Mapping[str, str]]) -> None:
    (folder / "cluster.json").write_text(json.dumps({"url": url, "ca": str(ca), "subjects": subjects}))


def _group(name: str) -> dict[str, str]:
    return {"kind": "Group", "name": name, "apiGroup": "rbac.authorization.k8s.io"}


def _write_kubeconfig(cluster: Cluster, user: str, credential: Mapping[str, str]) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": cluster.url, "certificate-authority": str(cluster.ca)}}],
        "users": [{"name": user, "user": dict(credential)}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        "current-context": "test",
    }
    path = cluster.kubeconfig(user)
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))


def _named(entries: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(each for each in entries if each["name"] == name)


def _filed(section: Mapping[str, str], name: str, folder: Path) -> Path:
    """The file that a kubeconfig names, or one that holds what stands in it."""
    if name in section:
        return Path(section[name])
    path = folder / name
    path.touch(mode=0o600)
    path.write_bytes(base64.b64decode(section[f"{name}-data"]))
    return path


def _started(folder: Path, name: str, command: Sequence[str]) -> int:
    """Start a process that outlives this one, for others may still use it; what it says goes to a file."""
    log = str(folder / f"{name}.log")
    streams = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawn(command[0], [*command], {"GOGC": COLLECTED, **os.environ}, file_actions=streams)
    (folder / "pids").write_text(json.dumps({**_processes(folder), name: pid}))
    return pid


def _processes(folder: Path) -> dict[str, int]:
    try:
        return cast("dict[str, int]", json.loads((folder / "pids").read_text()))
    except FileNotFoundError:
        return {}


def _using(users: Path) -> list[int]:
    """The processes that use the shared cluster and are still there."""
    return [pid for pid in json.loads(users.read_text()) if _alive(pid)] if users.is_file() else []


def _alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be asked for its status does not."""
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _until(done: Any, otherwise: str, *, log: tuple[int, Path] | None = None) -> None:
    """Wait for something to be so; `log`: the process it depends on, and what that says."""
    end = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < end and (log is None or _alive(log[0])):
        with suppress(httpx2.TransportError):
            if done():
                return
        time.sleep(0.05)
    raise TimeoutError(f"{otherwise}:\n{log[1].read_text()[-4000:] if log else ''}")


def _established(definition: Mapping[str, Any]) -> bool:
    conditions = definition.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
