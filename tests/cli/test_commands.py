"""The command line as a whole: usage, exit statuses, output for people and for programs, completion, and how fast it is there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.command import SECONDS, environment, hansa, on_terminal, start
from cli.scripted_server import ScriptedServer, as_json, event, page, problem, refused_port, run

AGENT = {"name": "echo", "runtime": "loop", "model": "small", "revision": 2, "manager": "rest", "updated_at": "2026-01-02T03:04:05Z"}
PLUGINS: list[dict[str, Any]] = [
    {"name": "tools", "distribution": "hansa-tools", "version": "0.1.0", "state": "loaded", "reason": "", "provides": {"tools": ["clock"]}},
    {"name": "bad", "distribution": "bad", "version": "1", "state": "failed", "reason": "no module x", "provides": {}},
]


@pytest.fixture
def listing(server: ScriptedServer) -> ScriptedServer:
    """Has one of everything."""
    server.on("GET /v1/runs", page(run(output="[bold]not markup[/bold]")))
    server.on(
        "GET /v1/sessions", page({"id": "s1", "agent": "echo", "created_at": "2026-01-02T03:04:05Z", "last_seq": 4, "active_run": None})
    )
    server.on("GET /v1/agents", page(AGENT))
    server.on("GET /v1/objects", page({"kind": "Tenant", "name": "default", "generation": 1, "manager": "rest", "updated_at": None}))
    verified = {"type": "IsolationVerified", "status": "True", "reason": "ProbesPassed", "message": "no hole"}
    ready = {"type": "Ready", "status": "True", "reason": "AllReady", "message": "at work"}
    server.on("GET /v1/tenants", page({"name": "default", "state": "active", "conditions": [verified, ready]}))
    server.on("GET /v1/tools", page({"name": "clock", "plugin": "tools", "effect": "read", "description": "The time."}))
    models = {"ref": "local/m", "provider": "local", "name": "m", "aliases": ["small"], "plugin": "local", "usable": True, "reason": ""}
    server.on("GET /v1/models", page(models))
    return server.on("GET /v1/plugins", page(PLUGINS[0]))


LISTS = (("runs",), ("sessions",), ("get", "agents"), ("get", "tenants"), ("get", "runs"), ("tools",), ("models",), ("plugins",))


@pytest.mark.parametrize("command", LISTS, ids=" ".join)
def test_every_list_is_a_plain_table_or_json_or_yaml_alone_on_stdout(
    listing: ScriptedServer, tmp_path: Path, command: tuple[str, ...]
) -> None:
    table = hansa(*command, cwd=tmp_path, HANSA_URL=listing.url)
    assert (table.status, table.err) == (0, "")
    assert len(table.out.splitlines()) == 2
    assert table.out.isascii()
    found = hansa(*command, "--output", "json", cwd=tmp_path, HANSA_URL=listing.url)
    assert isinstance(json.loads(found.out), list)
    assert found.err == ""
    assert hansa(*command, "-o", "yaml", cwd=tmp_path, HANSA_URL=listing.url).out.startswith("- ")


def test_an_empty_list_is_an_empty_list_for_programs_and_a_word_for_people(server: ScriptedServer, tmp_path: Path) -> None:
    server.on("GET /v1/runs", page())
    assert hansa("runs", "-o", "json", cwd=tmp_path, HANSA_URL=server.url).out == "[]\n"
    people = hansa("runs", cwd=tmp_path, HANSA_URL=server.url)
    assert (people.out, people.err) == ("", "nothing found\n")


def test_filters_of_runs_are_passed_on(listing: ScriptedServer, tmp_path: Path) -> None:
    hansa("runs", "--agent", "echo", "--state", "failed", "--session", "s1", "--limit", "7", cwd=tmp_path, HANSA_URL=listing.url)
    assert listing.requests[0].query == {"agent": "echo", "state": "failed", "session_id": "s1", "limit": "7"}


def test_a_table_on_a_terminal_shows_markup_as_text_and_obeys_no_color(listing: ScriptedServer, tmp_path: Path) -> None:
    status, seen = on_terminal("runs", cwd=tmp_path, HANSA_URL=listing.url, NO_COLOR="1")
    assert status == 0
    assert "[bold]not markup[/bold]" in seen
    assert "\x1b[3" not in seen


def test_no_color_takes_all_colour_out_of_messages_and_help(tmp_path: Path) -> None:
    with refused_port() as port:
        arguments = ("runs", "--url", f"http://127.0.0.1:{port}")
        assert "\x1b[31m" in on_terminal(*arguments, cwd=tmp_path)[1]
        assert "\x1b" not in on_terminal(*arguments, cwd=tmp_path, NO_COLOR="1")[1]
    assert "\x1b[3" not in on_terminal("--help", cwd=tmp_path, NO_COLOR="1")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rnus",), 'Did you mean "runs"?'),
        (("runs", "shwo", "r1"), "shwo"),
        (("runs", "--outptu", "json"), "--output"),
        (("runs", "-o", "xml"), "xml"),
        (("runs", "--state", "done"), "completed"),
        (("runs", "--limit", "many"), "many"),
        (("apply",), "--filename"),
        (("completion", "tcsh"), "zsh"),
        (("get",), "--kind"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_was_meant(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    ended = hansa(*arguments, cwd=tmp_path)
    assert (ended.status, ended.out) == (2, "")
    assert said in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("flag", [("-o", "json"), ("--output", "json"), ("--output=json",)])
def test_an_error_is_one_json_object_for_programs(server: ScriptedServer, tmp_path: Path, flag: tuple[str, ...]) -> None:
    flaw = {"path": "a", "code": "type", "message": "m"}
    server.on("GET /v1/runs", problem(422, "invalid", "why not", errors=[flaw], hint="do this"))
    ended = hansa("runs", *flag, cwd=tmp_path, HANSA_URL=server.url)
    assert (ended.status, ended.out) == (65, "")
    told = json.loads(ended.err)
    assert (told["code"], told["detail"], told["hint"], told["errors"]) == ("invalid", "why not", "do this", [flaw])
    assert (told["status"], told["exit_status"], told["retryable"]) == (422, 65, False)


@pytest.mark.parametrize("arguments", [("runs", "--outptu"), ("runs", "--limit", "0"), ("run", "echo"), ("rnus",)])
def test_wrong_usage_is_a_json_object_too(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = hansa(*arguments, "-o", "json", cwd=tmp_path)
    assert (ended.status, ended.out) == (2, "")
    assert json.loads(ended.err)["code"] == "usage"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_text_that_an_encoding_lacks_is_told_in_one_line_and_else_shown(server: ScriptedServer, tmp_path: Path, encoding: str) -> None:
    server.on("GET /v1/runs", page(run(output="\N{SNOWMAN}")))
    process = start("runs", cwd=tmp_path, HANSA_URL=server.url, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    out, err = process.communicate(timeout=SECONDS)
    if encoding == "utf-8":
        assert (process.returncode, err) == (0, "")
        assert "\N{SNOWMAN}" in out
    else:
        assert process.returncode == 65
        assert err.startswith(f"error: a text can't be written or sent in {encoding}: ")
        assert len(err.splitlines()) == 1


def test_bytes_that_are_no_text_are_refused_as_input(server: ScriptedServer, tmp_path: Path) -> None:
    command = [sys.executable.encode(), b"-m", b"hansa", b"run", b"echo", b"caf\xe9"]
    ended = subprocess.run(command, cwd=tmp_path, env=environment(HANSA_URL=server.url), capture_output=True, check=False, timeout=60)
    assert ended.returncode == 65
    assert b"can't be written or sent in utf-8" in ended.stderr
    assert b"Traceback" not in ended.stderr
    assert server.requests == []


def test_a_closed_stdout_or_stdin_is_no_traceback(listing: ScriptedServer, tmp_path: Path) -> None:
    for closed, status in ((">&-", 74), ("<&-", 0), ("2>&-", 0), ("<&- 2>&-", 0)):
        command = ["sh", "-c", f'"$0" -m hansa runs {closed}', sys.executable]
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment(HANSA_URL=listing.url), capture_output=True, text=True, check=False, timeout=60
        )
        assert "Traceback" not in ended.stderr
        assert ended.returncode == status, ended.stderr


def test_without_a_server_every_command_says_what_was_tried_and_what_to_do(tmp_path: Path) -> None:
    ended = hansa("runs", cwd=tmp_path)
    assert (ended.status, ended.out) == (69, "")
    for said in ("--url", "HANSA_URL", ".hansa/ready.json", "hansa up"):
        assert said in ended.err


def test_a_server_that_is_gone_is_named_with_where_its_address_came_from(tmp_path: Path) -> None:
    folder = tmp_path / ".hansa"
    folder.mkdir()
    (folder / "key").write_text("k")
    with refused_port() as port:
        (folder / "ready.json").write_text(json.dumps({"url": f"http://127.0.0.1:{port}", "api_key_file": str(folder / "key")}))
        ended = hansa("runs", "-o", "json", cwd=tmp_path)
    assert (ended.status, ended.out) == (69, "")
    assert f"nothing answers at http://127.0.0.1:{port}" in ended.err
    assert "ready.json" in ended.err


def test_a_refused_key_ends_with_77_and_is_not_shown(server: ScriptedServer, tmp_path: Path) -> None:
    server.on("GET /v1/runs", problem(401, "unauthenticated", "checksum of the key is wrong (typo or truncated?)"))
    ended = hansa("runs", cwd=tmp_path, HANSA_URL=server.url)
    assert ended.status == 77
    assert "checksum of the key is wrong" in ended.err
    assert "HANSA_API_KEY" in ended.err
    assert "key-of-the-test" not in ended.err


def test_a_failed_plugin_is_named_and_makes_the_status_1(server: ScriptedServer, tmp_path: Path) -> None:
    server.on("GET /v1/plugins", page(*PLUGINS))
    ended = hansa("plugins", cwd=tmp_path, HANSA_URL=server.url)
    assert ended.status == 1
    assert "bad failed: no module x" in ended.err


def test_a_replay_that_differs_makes_the_status_1(server: ScriptedServer, tmp_path: Path) -> None:
    route = "GET /v1/runs/run-1/replay"
    server.on(route, as_json({"equal": True, "steps": 4, "digest": "abc", "recorded_digest": "abc", "diverged_at": None}))
    assert hansa("runs", "replay", "run-1", cwd=tmp_path, HANSA_URL=server.url) == (0, "equal: 4 steps, abc\n", "")
    server.on(route, as_json({"equal": False, "steps": 4, "diverged_at": {"step": "2", "expected": "a", "got": "b"}}))
    ended = hansa("runs", "replay", "run-1", cwd=tmp_path, HANSA_URL=server.url)
    assert ended.status == 1
    assert ended.out == "differs at step 2\nin the log: a\nnow: b\n"


def test_a_cancel_asks_the_server_and_says_what_it_answered(server: ScriptedServer, tmp_path: Path) -> None:
    server.on("POST /v1/runs/run-1/cancel", as_json(run("running"), 202))
    assert hansa("runs", "cancel", "run-1", cwd=tmp_path, HANSA_URL=server.url).err == "run run-1: running, asked to stop\n"


@pytest.mark.parametrize(("state", "told"), [("completed", "already completed"), ("failed", "already failed"), ("canceled", "canceled")])
def test_a_cancel_of_a_run_that_is_over_says_how_it_ended(server: ScriptedServer, tmp_path: Path, state: str, told: str) -> None:
    server.on("POST /v1/runs/run-1/cancel", as_json(run(state), 202))
    assert hansa("runs", "cancel", "run-1", cwd=tmp_path, HANSA_URL=server.url).err == f"run run-1: {told}\n"


@pytest.fixture
def logged(server: ScriptedServer) -> ScriptedServer:
    """A session with two runs."""
    bodies = [
        event(1, "run.queued", {"input": "hi"}),
        event(2, "run.queued", {"input": "other"}, run="run-2"),
        event(3, "run.completed", {"output": 7}),
    ]
    entries = [json.loads(body.partition("data: ")[2]) for body in bodies]
    server.on("GET /v1/runs/run-1", as_json(run()))
    server.on("GET /v1/sessions/session-1", as_json({"id": "session-1"}))
    server.on("GET /v1/sessions/session-1/events", page(*entries[:2], after="2"), page(entries[2]))
    return server


def test_logs_of_a_session_are_its_events_one_a_line(logged: ScriptedServer, tmp_path: Path) -> None:
    ended = hansa("logs", "session-1", cwd=tmp_path, HANSA_URL=logged.url, TZ="UTC")
    assert ended.out == "03:04:05    1 run.queued hi\n03:04:05    2 run.queued other\n03:04:05    3 run.completed 7\n"
    assert [request.query["after"] for request in logged.seen("GET /v1/sessions/session-1/events")] == ["0", "2"]


def test_logs_of_a_run_leave_out_the_other_runs_and_json_is_one_object_a_line(logged: ScriptedServer, tmp_path: Path) -> None:
    ended = hansa("logs", "run-1", "-o", "json", cwd=tmp_path, HANSA_URL=logged.url)
    assert [json.loads(line)["seq"] for line in ended.out.splitlines()] == [1, 3]


def test_logs_of_nothing_known_end_with_66(server: ScriptedServer, tmp_path: Path) -> None:
    ended = hansa("logs", "nobody", cwd=tmp_path, HANSA_URL=server.url)
    assert ended.status == 66
    assert "no session and no run with the id nobody" in ended.err


def test_a_reader_that_goes_away_is_no_error(server: ScriptedServer, tmp_path: Path) -> None:
    server.on("GET /v1/runs", page(*[run(output="x" * 100) for _ in range(200)], after="more"))
    child = start("runs", "--limit", "100000", "-o", "json", cwd=tmp_path, HANSA_URL=server.url)
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    said = child.stderr.read()
    child.stderr.close()
    assert child.wait(60) == 141
    assert said == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_commands(tmp_path: Path, shell: str) -> None:
    ended = hansa("completion", shell, cwd=tmp_path)
    assert ended.status == 0, ended.err
    for word in ("apply", "sessions", "each-line", "replay"):
        assert word in ended.out
    program = shutil.which(shell)
    if program is not None:
        script = tmp_path / "completion"
        script.write_text(ended.out)
        assert subprocess.run([program, "-n", str(script)], capture_output=True, check=False, timeout=20).stderr == b""


def test_version_and_help_need_no_server(tmp_path: Path) -> None:
    assert hansa("--version", cwd=tmp_path).out.strip() == json.loads(hansa("version", "-o", "json", cwd=tmp_path).out)["hansa"]
    top = hansa("--help", cwd=tmp_path)
    assert top.status == 0
    for command in ("up", "doctor", "apply", "runs", "logs", "serve", "completion"):
        assert f" {command} " in top.out
    assert "--each-line" in hansa("run", "--help", cwd=tmp_path).out


def test_the_script_and_the_module_are_the_same_program(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("hansa")
    ended = subprocess.run([script, "--version"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=40, check=True)
    assert ended.stdout == hansa("--version", cwd=tmp_path).out


def test_listing_runs_imports_nothing_of_the_server(listing: ScriptedServer, tmp_path: Path) -> None:
    program = (
        "import sys; from hansa.cli.application import main; status = main(['runs', '-o', 'json']); "
        "print(*sys.modules, file=sys.stderr); "
        "sys.exit(status)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(HANSA_URL=listing.url),
        capture_output=True,
        text=True,
        timeout=40,
        check=True,
    )
    loaded = set(ended.stderr.split())
    assert loaded.isdisjoint({"litestar", "sqlalchemy", "asyncpg", "nats", "structlog", "pluggy", "alembic", "hansa_crds"})
    assert loaded.isdisjoint({"hansa.process", "hansa.dev", "hansa.cli.doctor", "hansa.cli.demo"})
    # Which words are text to `hansa apply` is all that a table needs of it.
    assert {name for name in loaded if name.startswith("hansa.apply")} == {"hansa.apply", "hansa.apply.scalars"}
    assert "hansa.cli.records" in loaded


def test_doctor_answers_every_check_without_a_server_and_ends_with_1(tmp_path: Path) -> None:
    ended = hansa("doctor", "-o", "json", cwd=tmp_path, PATH=os.environ["PATH"])
    checks = {check["name"]: check for check in json.loads(ended.out)}
    assert ended.status == 1
    assert set(checks) == {"python", "PostgreSQL", "NATS", "data folder", "cage", "local stack", "api"}
    assert [name for name, check in checks.items() if check["state"] == "fail"] == ["api"]
    assert "PostgreSQL" in checks["PostgreSQL"]["detail"]
    assert "hansa up" in checks["api"]["action"]
    assert not (tmp_path / ".hansa").exists()


def test_doctor_names_what_the_server_lacks(server: ScriptedServer, tmp_path: Path) -> None:
    server.on("GET /readyz", as_json({"status": "ok", "checks": [{"name": "database", "ok": True, "detail": ""}]}))
    server.on("GET /v1/plugins", page(*PLUGINS))
    model = {"ref": "anthropic/c", "usable": False, "reason": "the environment variable ANTHROPIC_API_KEY is not set"}
    server.on("GET /v1/models", page(model))
    server.on("GET /v1/agents", page())
    ended = hansa("doctor", "-o", "json", cwd=tmp_path, HANSA_URL=server.url)
    checks = {check["name"]: (check["state"], check["detail"]) for check in json.loads(ended.out)}
    assert ended.status == 1
    assert checks["plugins"] == ("fail", "bad: no module x")
    assert checks["models"][0] == "warn"
    assert "ANTHROPIC_API_KEY" in checks["models"][1]
    assert checks["api"][0] == "ok"
    assert checks["agents"][0] == "warn"


def test_doctor_names_the_part_that_is_not_ready(server: ScriptedServer, tmp_path: Path) -> None:
    server.on("GET /readyz", as_json({"status": "unavailable", "checks": [{"name": "nats", "ok": False, "detail": "no answer"}]}, 503))
    ended = hansa("doctor", cwd=tmp_path, HANSA_URL=server.url)
    assert ended.status == 1
    assert "nats: no answer" in ended.out


def test_status_of_nothing_ends_with_3(tmp_path: Path) -> None:
    ended = hansa("status", cwd=tmp_path)
    assert (ended.status, ended.out) == (3, "")
    assert "nothing runs here" in ended.err
    assert hansa("down", cwd=tmp_path).status == 0


def test_the_demonstration_says_what_it_misses_before_it_starts_anything(tmp_path: Path) -> None:
    ended = hansa("demo", "--once", cwd=tmp_path)
    assert ended.status == 78
    assert "gitops/tenants/default" in ended.err
    assert "--manifests" in ended.err
    assert not (tmp_path / ".hansa").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("up", "--port", "99999"),
        ("up", "--nats-port", "70000"),
        ("up", "--postgres-port", "-1"),
        ("up", "--workers", "0"),
        ("runs", "--limit", "0"),
        ("sessions", "--limit", "-3"),
    ],
)
def test_a_number_out_of_range_is_refused_before_anything_starts(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = hansa(*arguments, cwd=tmp_path)
    assert (ended.status, ended.out) == (2, "")
    assert arguments[1] in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_behind_the_result_is_told_in_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "hansa", "version"]
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    assert ended.returncode == 74
    assert ended.stderr.strip() == "error: the result can't be written: No space left on device"


def test_a_worker_loads_no_web_framework() -> None:
    program = "import hansa.cli.worker, sys; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split())
    assert "hansa.runs.worker" in loaded
    assert loaded.isdisjoint({"litestar", "hansa.api", "sqlalchemy", "alembic", "hansa.cli.control_plane"})
