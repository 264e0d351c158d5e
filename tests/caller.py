"""Stands for a process that a fork server forks: it is called with the same arguments, streams, folder and environment, passes signals on
to it, and ends as that does. See `forkserver`.

Warning: it is started some hundred times, without site-packages, so that starting it costs nearly nothing; import no more than it must.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
UNAVAILABLE = 69


def opened() -> list[int]:
    """The file descriptors that were open when we were started."""
    found: list[int] = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the listing itself
            os.fstat(int(name))
            found.append(int(name))
    return found


def main(server: str, arguments: list[str]) -> int:
    """The exit status of the process, negative for a signal."""
    numbers = opened()
    deaf = [number for number in PASSED_ON if signal.getsignal(number) is signal.SIG_IGN]
    question = {
        "start": arguments,
        "env": dict(os.environ),
        "cwd": os.getcwd(),
        "numbers": numbers,
        "deaf": deaf,
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.connect(server)
        socket.send_fds(line, [json.dumps(question).encode()], numbers)
        pid = int(line.recv(64) or 0)

        def pass_on(number: int, _frame: object) -> None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

        for number in PASSED_ON:
            if pid and number not in deaf:
                signal.signal(number, pass_on)
        return int(line.recv(64) or UNAVAILABLE)


if __name__ == "__main__":
    status = main(sys.argv[1], sys.argv[2:])
    if status < 0:
        with suppress(OSError):  # SIGKILL
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)
