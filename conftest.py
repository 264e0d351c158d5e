"""What holds for every test: none is skipped, for a skipped promise is an untested one."""

import signal

import pytest


def skipped(session: pytest.Session) -> list[str]:
    """Node ids of the tests that were skipped in a session."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    return [report.nodeid for report in reporter.stats.get("skipped", [])] if reporter else []


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and skipped(session):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.stats.get("skipped", []):
        terminalreporter.write_line(f"FAILED {report.nodeid}: skipped, and a skipped test counts as a failure here")


def pytest_configure(config: pytest.Config) -> None:
    # Started in the background, a shell has us ignore Ctrl-C, and every process that a test starts would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
