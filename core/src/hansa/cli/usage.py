"""The error of the command line itself, a leaf of the tree in `hansa.errors`.

HansaError
└── UsageError              2  usage       what was typed contradicts itself; nothing was asked of a server
"""

from hansa.errors import HansaError


class UsageError(HansaError):
    """The command was typed in a way that says too little or contradicts itself."""

    code, status, title, exit_code = "usage", 400, "Wrong usage", 2
