"""Git over ssh, by the `ssh` program of the machine: its keys, its agent, its configuration, and arguments that nobody else can add to.

Warning: what ssh writes to its error output goes to a file; a pipe that nobody reads would stop it when it is full.
"""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import IO, Any

from dulwich.client import FetchPackResult, LsRemoteResult, SSHGitClient, SSHVendor, SubprocessWrapper
from dulwich.protocol import Protocol

from hansa.apply.repository.failures import Reason, RepositoryRefused
from hansa.apply.repository.location import Location
from hansa.apply.repository.packs import MAX_PACK_BYTES
from hansa.apply.repository.settings import GitSettings

CONNECT_SECONDS = 10
ANSWER_SECONDS = 120.0
"""Longest time for one conversation; then the program is killed."""
_SAID_BYTES = 4096
_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "SSH_AUTH_SOCK", "LANG", "TMPDIR")
"""What ssh sees of the environment: no key of ours."""


class SshRemote(SSHGitClient):
    """A repository behind ssh, as dulwich asks it."""

    def __init__(self, location: Location, settings: GitSettings, *, program: str = "ssh", seconds: float = ANSWER_SECONDS) -> None:
        self._program = _Program(settings, program, seconds)
        super().__init__(location.host, port=location.port, username=location.user, vendor=self._program)

    def _connect(self, *arguments: Any, **options: Any) -> tuple[Protocol, Callable[[], bool], IO[bytes] | None]:
        protocol, can_read, said = super()._connect(*arguments, **options)
        self._program.protocol = protocol
        return protocol, can_read, said

    def get_refs(self, *arguments: Any, **options: Any) -> LsRemoteResult:
        with self._program.ending():
            return super().get_refs(*arguments, **options)

    def fetch_pack(self, *arguments: Any, **options: Any) -> FetchPackResult:
        with self._program.ending():
            return super().fetch_pack(*arguments, **options)


class _Program(SSHVendor):
    def __init__(self, settings: GitSettings, program: str, seconds: float) -> None:
        self._settings = settings
        self._program = program
        self._seconds = seconds
        self._running: _Conversation | None = None
        self.protocol: Protocol | None = None

    @contextmanager
    def ending(self) -> Iterator[None]:
        """No program outlives what it was started for, however that ends."""
        try:
            yield
        finally:
            if self.protocol is not None:
                self.protocol.close()
                self.protocol = None
            if self._running is not None:
                self._running.end()
                self._running = None

    def run_command(
        self, host: str, command: bytes, username: str | None = None, port: int | None = None, *_: Any, **__: Any
    ) -> SubprocessWrapper:
        """Start ssh. What dulwich says of passwords, keys and other commands is not asked."""
        options = {
            "BatchMode": "yes",  # nobody is there to answer a question
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": str(CONNECT_SECONDS),
            "ServerAliveInterval": "10",
            "ServerAliveCountMax": "3",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "ClearAllForwardings": "yes",
            "PermitLocalCommand": "no",
            "SetEnv": "GIT_PROTOCOL=version=2",
        }
        if self._settings.ssh_key_file:
            options |= {"IdentityFile": _quoted(self._settings.ssh_key_file), "IdentitiesOnly": "yes"}
        if self._settings.known_hosts_file:
            options |= {"UserKnownHostsFile": _quoted(self._settings.known_hosts_file), "GlobalKnownHostsFile": "none"}
        arguments = [self._program, "-x", "-T", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
        if port:
            arguments += ["-p", str(port)]
        # After `--` nothing is an option, whatever it begins with.
        arguments += ["--", f"{username}@{host}" if username else host, command.decode()]
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        said = TemporaryFile()  # noqa: SIM115  lives as long as the conversation
        try:
            started = subprocess.Popen(
                arguments, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=kept, start_new_session=True
            )
        except OSError as error:
            said.close()
            raise RepositoryRefused(Reason.UNREACHABLE, f"the program {self._program} can't be started: {error.strerror}") from error
        self._running = _Conversation(started, said, self._seconds)
        return self._running


class _Conversation(SubprocessWrapper):
    """With an end: after so many seconds, or so many bytes, the program is killed, and dulwich sees that it has hung up."""

    def __init__(self, started: subprocess.Popen[bytes], said: IO[bytes], seconds: float) -> None:
        super().__init__(started)
        self._said = said
        self._count = 0
        self._ending = threading.Timer(seconds, started.kill)
        self._ending.daemon = True
        self._ending.start()
        self._whole: Callable[[int], bytes] = self.read
        self.read = self._counted

    @property
    def stderr(self) -> Any:
        """What dulwich reads when the program has hung up."""
        return self

    def readlines(self) -> list[bytes]:
        """What ssh has said, as far as anybody will read it."""
        self.proc.wait(CONNECT_SECONDS)
        self._said.seek(0)
        return self._said.read(_SAID_BYTES).splitlines()

    def _counted(self, size: int = -1) -> bytes:
        data = self._whole(size)
        self._count += len(data)
        if self._count > MAX_PACK_BYTES:
            raise RepositoryRefused(Reason.TOO_LARGE, f"the server sends more than {MAX_PACK_BYTES} bytes")
        return data

    def close(self, timeout: int | None = 60) -> None:
        """Of dulwich: nothing more is said. `end` does the rest."""

    def end(self) -> None:
        """Kill the program, if it has not ended, and forget it."""
        self._ending.cancel()
        self.proc.kill()
        for stream in (self.proc.stdin, self.proc.stdout, self._said):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        self.proc.wait()


def _quoted(path: str) -> str:
    """A file name in the form of ssh's configuration, where blanks would divide it."""
    return '"' + path.replace("%", "%%").replace('"', "") + '"'
