"""What a hostile program tries, each a few lines of Python that reach their end only where nothing stops them.

All run in one program, one after the other; it prints the names of those that got through. Words in braces are filled in.
"""

from collections.abc import Mapping

PROBES: Mapping[str, str] = {
    "read the users of the machine": "open('/etc/passwd').read()",
    "read a file of somebody's home": "open('{secret}').read()",
    "list somebody's home": "os.listdir('{home}')",
    "read the environment of the worker": "assert open('/proc/{worker}/environ').read()",
    "read the environment of whoever began it": "assert open('/proc/%d/environ' % os.getppid()).read()",
    "see what others run": """
numbers = filter(str.isdigit, os.listdir('/proc'))
assert any(b'{rekram}'[::-1] in open('/proc/%s/cmdline' % number, 'rb').read() for number in numbers)
""",
    "write outside of the workspace": "open('{outside}/left-by-%d' % os.getpid(), 'w')",
    "write into the system": "open('/usr/left-by-a-probe', 'w'); os.unlink('/usr/left-by-a-probe')",
    "leave the workspace by a link": "os.symlink('{secret}', 'link') if not os.path.islink('link') else 0; open('link').read()",
    "connect by TCP": "socket.create_connection(('127.0.0.1', {tcp}), 2).close()",
    "send by UDP": "assert socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {udp}))",
    "listen": "socket.create_server(('127.0.0.1', 0))",
    "connect to a unix socket": "socket.socket(socket.AF_UNIX).connect('{unix}')",
    "connect to an abstract socket": "socket.socket(socket.AF_UNIX).connect(chr(0) + '{abstract}')",
    "take 2 GiB of memory": "mmap.mmap(-1, 2 << 30).close()",
    "keep memory that no process has": "os.memfd_create('kept')",
    "share memory with the machine": "segment = libc.shmget(0, 1 << 20, 0o1600); assert segment >= 0; libc.shmctl(segment, 0, None)",
    "write a large file": "[open('large', 'ab').write(bytes(1 << 20)) for _ in range(20)]",
    "signal the worker": "os.kill({worker}, 0)",
    "signal a neighbour": "os.kill({neighbour}, 0)",
    "start 200 processes": """
children = []
try:
    for _ in range(200):
        child = os.fork()
        if not child:
            time.sleep(30)
            os._exit(0)
        children.append(child)
finally:
    for child in children:
        os.kill(child, 9)
        os.waitpid(child, 0)
""",
    "be traced": "assert libc.ptrace(0, 0, 0, 0) == 0",
}

ALWAYS_FOR_ROOT = frozenset({"write into the system"})
"""What works uncaged for root alone."""

_PROGRAM = """
import ctypes, mmap, os, socket, sys, time
libc = ctypes.CDLL(None)
probes = {probes!r}
for name, code in probes.items():
    try:
        exec(code)
    except BaseException as error:
        print('-', name, type(error).__name__, error, flush=True)
    else:
        print('+', name, flush=True)
print('end', flush=True)
"""


def program(**words: object) -> str:
    """All probes as one program."""
    probes: dict[str, str] = {}
    for name, code in PROBES.items():
        for word, value in words.items():
            code = code.replace(f"{{{word}}}", str(value))
        probes[name] = code
    return _PROGRAM.replace("{probes!r}", repr(probes))


def got_through(printed: str) -> set[str]:
    """Names of the probes that were not stopped; all were tried."""
    lines = printed.splitlines()
    assert lines[-1:] == ["end"], printed
    assert len(lines) == len(PROBES) + 1, printed
    return {line[2:] for line in lines if line.startswith("+ ")}
