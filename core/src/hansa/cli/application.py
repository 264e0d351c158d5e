"""Every command by name, each loaded only when it is called, and what the exit status of the program is.

    0 done   1 partly failed, or the run failed   2 wrong usage   3 nothing runs (`hansa status`)
    4 the run has not ended: it needs review, is suspended, or was left waiting   65 bad data   66 not found   69 unavailable
    74 can't write the result   75 try again   77 not permitted   78 misconfigured   130 Ctrl-C   141 nobody reads stdout

Warning: import nothing here that is slow: it would make every command slow, also completion in a shell.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import pairwise

from cyclopts import App, CycloptsError, Group

from hansa.cli.output import report
from hansa.cli.usage import UsageError
from hansa.errors import HansaError

USAGE, DATA_ERROR, IO_ERROR, INTERRUPTED, PIPE_CLOSED = 2, 65, 74, 130, 141

_GROUPS = ("Local stack", "Objects", "Runs", "Access", "What is loaded", "Processes", "This program")
_COMMANDS = (
    ("up", "hansa.cli.stack:up", 0, "Start PostgreSQL, NATS and Hansa on this machine."),
    ("down", "hansa.cli.stack:down", 0, "Stop what `hansa up` started."),
    ("status", "hansa.cli.stack:status", 0, "Show what `hansa up` started, and how it is."),
    ("doctor", "hansa.cli.doctor:doctor", 0, "Check this machine, the data folder and the server, and say what to do."),
    ("demo", "hansa.cli.demo:demo", 0, "Start everything and triage real film reviews with a small local model."),
    ("apply", "hansa.cli.applying:apply", 1, "Create or change the objects that files describe."),
    ("validate", "hansa.cli.planning:validate", 1, "Check files by all rules that need no server."),
    ("plan", "hansa.cli.planning:plan_command", 1, "Show what `hansa sync` would create, change and delete."),
    ("diff", "hansa.cli.planning:diff", 1, "Show each value that `hansa sync` would change."),
    ("sync", "hansa.cli.syncing:sync", 1, "Make the platform what a repository says, and keep it so."),
    ("export", "hansa.cli.exporting:export", 1, "Write objects as YAML that `hansa apply` takes."),
    ("wait", "hansa.cli.waiting:wait", 1, "Wait until an object is as it should be."),
    ("get", "hansa.cli.objects:get", 1, "Show objects of a kind, or one of them."),
    ("delete", "hansa.cli.objects:delete", 1, "Delete an object."),
    ("rollout", "hansa.cli.rollout:rollout", 1, "See how a new revision of an agent comes to serve; go back, or try again."),
    ("takeover", "hansa.cli.objects:takeover", 1, "Give an object another owner."),
    ("sources", "hansa.cli.sources:sources", 1, "List what sources of objects last saw; forget one."),
    ("crds", "hansa.cli.definitions:crds", 1, "Print the definitions of Hansa's kinds for a Kubernetes cluster."),
    ("run", "hansa.cli.running:run", 2, "Run an agent and show its answer as it is written."),
    ("runs", "hansa.cli.records:runs", 2, "List runs; show, cancel, suspend, resume, fork or replay one."),
    ("sessions", "hansa.cli.records:sessions", 2, "List sessions; show, export or import one, or send it an event."),
    ("logs", "hansa.cli.records:logs", 2, "Print the events of a session or of a run."),
    ("dead-letters", "hansa.cli.dead_letters:dead_letters", 2, "List messages that nobody could receive; show or retry one."),
    ("approvals", "hansa.cli.approvals:approvals", 2, "List what runs ask people, or show one."),
    ("approve", "hansa.cli.approvals:approve", 2, "Approve a call that a run asks to make."),
    ("deny", "hansa.cli.approvals:deny", 2, "Deny a call that a run asks to make."),
    ("answer", "hansa.cli.approvals:answer", 2, "Answer a question that a run asks."),
    ("login", "hansa.cli.login:login", 3, "Log in with an account at an OpenID provider."),
    ("logout", "hansa.cli.login:logout", 3, "Forget a log-in."),
    ("auth", "hansa.cli.access:auth", 3, "Show who you are, and whether you may do something."),
    ("keys", "hansa.cli.access:keys", 3, "List API keys; make, rotate or revoke one."),
    ("secrets", "hansa.cli.secrets:secrets", 3, "List secrets; set, delete or rotate them."),
    ("service-accounts", "hansa.cli.access:accounts", 3, "List service accounts; make or delete one."),
    ("tenants", "hansa.cli.tenants:tenants", 3, "List all tenants; show, export, import, restore one; list deletions."),
    ("audit", "hansa.cli.auditing:audit", 3, "List who changed what; export it, or verify that it is as it was written."),
    ("usage", "hansa.cli.spending:usage", 3, "Show what the tenant has used, by day, agent and model."),
    ("budget", "hansa.cli.spending:budget", 3, "Show what the tenant may use, and how much of that is left."),
    ("nats", "hansa.cli.nats:nats", 3, "Show the tenant's NATS account; make or revoke credentials for its own programs."),
    ("plugins", "hansa.cli.loaded:plugins", 4, "List plugins, what they bring, and which failed."),
    ("tools", "hansa.cli.loaded:tools", 4, "List the tools that agents may use."),
    ("models", "hansa.cli.loaded:models", 4, "List the models that agents may use."),
    ("serve", "hansa.cli.control_plane:serve", 5, "Run the control plane."),
    ("worker", "hansa.cli.worker:worker", 5, "Run a worker."),
    ("migrate", "hansa.cli.migrating:migrate", 5, "Bring the database to this version's schema."),
    ("version", "hansa.cli.program:version", 6, "Show the version of Hansa and of what it stands on."),
    ("completion", "hansa.cli.program:completion", 6, "Print the completion script for a shell."),
)


def build() -> App:
    """The command line, with no command loaded yet."""
    app = App(
        name="hansa",
        help="Run AI agents for many tenants in many regions, described in Git.",
        help_format="plaintext",
        version=lambda: version("hansa"),
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    groups = [Group(name, sort_key=rank) for rank, name in enumerate(_GROUPS)]
    for name, path, group, text in _COMMANDS:
        app.command(path, name=name, help=text, group=groups[group])
    return app


def main(arguments: Sequence[str]) -> int:
    """Run one command and return the exit status."""
    _fill_closed()
    as_json = _wants_json(arguments)
    try:
        result = build()(arguments, print_error=not as_json)
        sys.stdout.flush()
    except CycloptsError as error:
        if as_json:
            report(UsageError(str(error)), as_json=True)
        return USAGE
    except HansaError as error:
        report(error, as_json=as_json)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # As `hansa runs | head` does. Python would complain once more when it closes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except UnicodeEncodeError as error:
        return _unusable(f"a text can't be written or sent in {error.encoding}: {error.reason}", DATA_ERROR, as_json=as_json)
    except OSError as error:
        # A full disk behind stdout, or stdout closed: told on stderr if that is still there.
        return _unusable(f"the result can't be written: {error.strerror or error}", IO_ERROR, as_json=as_json)
    return result if isinstance(result, int) else 0


def _fill_closed() -> None:
    """Put something in the place of a standard stream that is closed, or the next file that is opened would be taken for it."""
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    if sys.stdout is None:
        # To write to it fails as it should: a result that nobody gets is no success.
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether results, and so errors, are for a program. Read here, since what is typed may be wrong in any other way."""
    words = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    joined = any(word in ("--output=json", "-o=json", "-ojson") for word in words)
    return joined or any(first in ("--output", "-o") and second == "json" for first, second in pairwise(words))


def _unusable(text: str, status: int, *, as_json: bool) -> int:
    """Say what went wrong with input or output itself, and keep Python from complaining once more at exit."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            if as_json:
                failure = HansaError(text)
                failure.exit_code = status
                report(failure, as_json=True)
            else:
                sys.stderr.write(f"error: {text}\n")
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status
