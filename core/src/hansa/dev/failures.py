"""Why `hansa up` could not start, or had to give up; each with the exit status of sysexits.h.

    HansaError
    └── StackFailure
        ├── PortTaken           69  another process listens there
        ├── PortRefused         69  the system refuses the address or port
        ├── NoFreePort          69  none left in the range
        ├── FolderInUse         75  another instance holds the data folder
        ├── FolderTooNew        78  made by a newer version
        ├── FolderTooOld        78  made by a version that can't be upgraded from
        ├── FolderDamaged       78  a part that can't be made anew is missing or unreadable
        ├── FolderUnreachable   73  no rights, no such device, not a folder
        ├── ProgramMissing      78  a server's binary is not installed
        ├── ServerDied          69  a process dies again and again
        └── NotReady            69  a process runs, and is not ready in time

Must not know who shows them.
"""

from hansa.errors import HansaError


class StackFailure(HansaError):
    """Root of what goes wrong with a local stack."""

    code, status, title, exit_code = "stack_failure", 503, "The local stack failed", 70


class PortTaken(StackFailure):
    """Another process listens on the port."""

    code, title, exit_code = "port_taken", "Port taken", 69


class PortRefused(StackFailure):
    """The system refuses to listen on this address or port."""

    code, title, exit_code = "port_refused", "Port refused", 69


class NoFreePort(StackFailure):
    """Every port that was tried is taken."""

    code, title, exit_code = "no_free_port", "No free port", 69


class FolderInUse(StackFailure):
    """Another instance runs over the same data folder."""

    code, title, exit_code = "folder_in_use", "Data folder in use", 75


class FolderTooNew(StackFailure):
    """The data folder was written by a newer version."""

    code, title, exit_code = "folder_too_new", "Data folder too new", 78


class FolderTooOld(StackFailure):
    """The data folder was written by a version that this one can't upgrade from."""

    code, title, exit_code = "folder_too_old", "Data folder too old", 78


class FolderDamaged(StackFailure):
    """Something in the data folder that can't be made anew is missing or unreadable."""

    code, title, exit_code = "folder_damaged", "Data folder damaged", 78


class FolderUnreachable(StackFailure):
    """The data folder can't be made, read or written."""

    code, title, exit_code = "folder_unreachable", "Data folder unreachable", 73


class ProgramMissing(StackFailure):
    """The binary of a server is not installed."""

    code, title, exit_code = "program_missing", "Program missing", 78


class ServerDied(StackFailure):
    """A process was started again and again, and died each time."""

    code, title, exit_code = "server_died", "Server died", 69


class NotReady(StackFailure):
    """A process runs and did not get ready in time."""

    code, title, exit_code = "not_ready", "Not ready", 69
