"""The Compose file, as compose-go reads it: what it starts holds together, and is as closed as in a cluster."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.charts import PLATFORM, Object, containers
from deploy.charts import chart as rendered
from deploy.test_chart import known
from hansa.cli.application import build

FILE = PLATFORM / "compose/compose.yaml"
READER = Path(__file__).parent / "compose"
OURS = ("migrate", "serve", "worker", "sync")
Project = dict[str, Any]
STOPS = {"HANSA_SERVER_GRACE_SECONDS": 12, "HANSA_WORKER_GRACE_SECONDS": 10}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that reads Compose files; compiled once, then it comes from Go's cache."""
    program = tmp_path_factory.mktemp("compose") / "reader"
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=READER, check=True, timeout=300)
    return program


def read(reader: Path, folder: Path, text: str, **environ: str) -> tuple[int, str]:
    """What becomes of a Compose file in a folder with the files that it names: status, and the project or the complaint."""
    (folder / "secrets").mkdir(exist_ok=True)
    for name in ("database.env", "database-admin.env"):
        (folder / "secrets" / name).touch()
    (folder / "compose.yaml").write_text(text)
    command = [str(reader), str(folder / "compose.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=environ | {"PATH": os.environ["PATH"]})
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


@pytest.fixture(scope="module")
def project(reader: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    status, told = read(reader, tmp_path_factory.mktemp("project"), FILE.read_text(), HANSA_REGION="north")
    assert status == 0, told
    return json.loads(told)


def secrets(service: Object) -> list[Object]:
    """The secrets of a service."""
    return service.get("secrets") or []


def env_files(service: Object) -> list[Object]:
    """The files of variables of a service."""
    return service.get("env_file") or []


def waits(service: Object) -> dict[str, Object]:
    """What a service waits for."""
    return service.get("depends_on") or {}


def broken(project: Project) -> list[str]:
    """What does not hold together."""
    wrong: list[str] = []
    services: dict[str, Any] = project["services"]
    for name, service in services.items():
        environment: dict[str, str] = service.get("environment") or {}
        if name in OURS:
            wrong += [f"{name}: {each} is no setting" for each in environment if each not in known()]
            closed = (service.get("read_only"), service.get("user"), service.get("cap_drop"), service.get("security_opt"))
            if closed != (True, "65532:65532", ["ALL"], ["no-new-privileges:true"]):
                wrong.append(f"{name}: may do more than it needs")
            wrong += [f"{name}: {each} is written" for each in environment if "DATABASE" in each]
        given = {str(each["target"]) for each in secrets(service)}
        wrong += [
            f"{name}: {text} is no secret of it" for text in environment.values() if text.startswith("/run/secrets/") and text not in given
        ]
        if name != "migrate" and "healthcheck" not in service:
            wrong.append(f"{name}: nobody asks whether it is well")
        for other, how in waits(service).items():
            if how["condition"] == "service_healthy" and "healthcheck" not in services[other]:
                wrong.append(f"{name}: waits for {other} to be healthy, which nobody asks")
        seconds = int(str(service.get("stop_grace_period") or "10s").replace("1m30s", "90s").replace("1m0s", "60s").rstrip("s"))
        wrong += [
            f"{name}: is killed too soon" for each, more in STOPS.items() if each in environment and seconds < int(environment[each]) + more
        ]
    return wrong


def test_the_file_holds_together(project: Project) -> None:
    assert set(project["services"]) == {"postgres", "nats", *OURS}
    assert broken(project) == []


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("serve", {"environment": {"HANSA_SERVER_HOTS": "0.0.0.0"}}),
        ("worker", {"healthcheck": None}),
        ("nats", {"healthcheck": None}),
        ("serve", {"read_only": False}),
        ("worker", {"user": "0:0"}),
        ("serve", {"secrets": []}),
        ("worker", {"stop_grace_period": "30s"}),
        ("serve", {"environment": {"HANSA_DATABASE_APP_URL": "postgresql://a:b@c/d"}}),
    ],
    ids=["setting", "worker-health", "nats-health", "writable", "root", "secret", "grace", "written-url"],
)
def test_what_does_not_hold_together_is_seen(project: Project, name: str, damage: Object) -> None:
    own: Project = json.loads(json.dumps(project))
    service: Object = own["services"][name]
    if damage == {"healthcheck": None}:
        del service["healthcheck"]
    else:
        service.update(damage)
    assert broken(own)


@pytest.mark.parametrize(
    ("old", "new"),
    [("read_only: true", "readonly: true"), ("postgres: {condition: service_healthy}", "postgre: {condition: service_healthy}")],
    ids=["unknown key", "nobody to wait for"],
)
def test_compose_refuses_what_it_does_not_know(reader: Path, tmp_path: Path, old: str, new: str) -> None:
    status, _ = read(reader, tmp_path, FILE.read_text().replace(old, new, 1))
    assert status == 1


def test_everything_starts_in_its_order(project: Project) -> None:
    after = {name: {other: how["condition"] for other, how in waits(each).items()} for name, each in project["services"].items()}
    servers = {"postgres": "service_healthy", "nats": "service_healthy", "migrate": "service_completed_successfully"}
    assert after["serve"] == after["worker"] == servers
    assert after["migrate"] == {"postgres": "service_healthy"}
    assert after["sync"] == {"serve": "service_healthy"}
    assert project["services"]["sync"]["profiles"] == ["git"], "only where it is asked for"


def test_buckets_that_are_named_are_those_of_control_plane_and_worker(reader: Path, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/models.env").write_text("AWS_ACCESS_KEY_ID=x\n")
    buckets = {"HANSA_ARTIFACTS_URL": "s3://values", "HANSA_AUDIT_URL": "s3://checkpoints"}
    status, told = read(reader, tmp_path, FILE.read_text(), **buckets)
    assert status == 0, told
    for name in ("serve", "worker"):
        service = json.loads(told)["services"][name]
        assert buckets.items() <= service["environment"].items(), name
        assert "models.env" in str(env_files(service)), "and the credentials with them"


def test_nobody_outside_reaches_postgresql_and_nats(project: Project) -> None:
    assert project["networks"]["servers"]["internal"] is True
    assert [project["services"][name]["networks"].keys() for name in ("postgres", "nats")] == [{"servers"}, {"servers"}]
    published = {name: each["ports"] for name, each in project["services"].items() if each.get("ports")}
    assert [(name, each["host_ip"]) for name, ports in published.items() for each in ports] == [("serve", "127.0.0.1")]


def test_the_key_to_all_accounts_and_the_admins_way_in_are_where_they_are_needed_alone(project: Project) -> None:
    having = {name for name, each in project["services"].items() if any(s["source"] == "nats-operator.seed" for s in secrets(each))}
    assert having == {"serve"}
    services: dict[str, Object] = project["services"]
    given = {name: [Path(str(each["path"])).name for each in env_files(service)] for name, service in services.items()}
    assert [name for name, files in given.items() if "database-admin.env" in files] == ["migrate"]


def test_every_secret_is_used_and_comes_from_a_file_that_git_does_not_keep(project: Project) -> None:
    used = {each["source"] for service in project["services"].values() for each in secrets(service)}
    assert used == set(project["secrets"])
    assert all("/secrets/" in each["file"] for each in project["secrets"].values())
    made = PLATFORM / "compose/secrets/made-by-a-test"
    ignored = subprocess.run(["git", "check-ignore", "--quiet", str(made)], cwd=PLATFORM, check=False)
    assert ignored.returncode == 0


def test_the_worker_is_asked_the_same_as_in_a_cluster(project: Project) -> None:
    probes = [container["livenessProbe"]["exec"]["command"] for name, _, container in containers(rendered("defaults")) if "worker" in name]
    assert project["services"]["worker"]["healthcheck"]["test"] == ["CMD", *probes[0]]


def test_nats_reads_its_configuration(project: Project, tmp_path: Path) -> None:
    hansa, server = shutil.which("hansa", path=Path(sys.executable).parent), Path(sys.executable).parent / "nats-server"
    assert hansa
    subprocess.run([hansa, "nats", "keys", str(tmp_path / "keys"), "--accounts", "/data/accounts"], check=True, capture_output=True)
    (tmp_path / "nats-accounts").mkdir()
    shutil.copy(tmp_path / "keys/accounts.conf", tmp_path / "nats-accounts")
    shutil.copy(tmp_path / "keys/accounts.conf", tmp_path)
    cluster = yaml.safe_load((PLATFORM / "examples/nats.yaml").read_text().split("---")[0])["data"]["nats.conf"]
    for place, text in ((tmp_path, project["configs"]["nats"]["content"]), (tmp_path / "etc", cluster)):
        place.mkdir(exist_ok=True)
        (place / "nats.conf").write_text(text)
        environ = {**os.environ, "POD_NAME": "nats-0"}
        done = subprocess.run([str(server), "-t", "-c", str(place / "nats.conf")], capture_output=True, text=True, check=False, env=environ)
        assert done.returncode == 0, done.stderr
        (place / "nats.conf").write_text(text.replace("max_payload", "max_payloads"))
        assert (
            subprocess.run([str(server), "-t", "-c", str(place / "nats.conf")], capture_output=True, check=False, env=environ).returncode
            != 0
        )


@pytest.mark.parametrize("name", OURS)
def test_a_command_is_one_that_hansa_takes(project: Project, name: str) -> None:
    build().parse_args(project["services"][name]["command"], exit_on_error=False, print_error=False)
