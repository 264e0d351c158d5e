"""The tools `python` and `shell`: a program the model wrote, run in the cage over the run's workspace, and nowhere else."""

from typing import Annotated

from msgspec import Meta

from hansa_sdk import Caged, ToolContext, ToolFailed, tool

MAX_PROGRAM = 65_536
LONGEST_SECONDS = 3700.0
"""The cage's own bound comes before it."""

Code = Annotated[str, Meta(min_length=1, max_length=MAX_PROGRAM, description="The program. What it prints is the answer.")]
Script = Annotated[str, Meta(min_length=1, max_length=MAX_PROGRAM, description="Lines for /bin/sh. What they print is the answer.")]
Stdin = Annotated[str, Meta(max_length=262_144, description="What the program can read from its standard input.")]

_TOO_MUCH = {
    "time": "it took too long",
    "memory": "it took too much memory",
    "processes": "it began too many processes",
    "disk": "it left too much in the workspace",
    "output": "it wrote too much output",
}


@tool(effect="unsafe", timeout=LONGEST_SECONDS, untrusted=True)
async def python(context: ToolContext, *, code: Code, stdin: Stdin = "") -> dict[str, object]:
    """Run a Python program: standard library only, no network, files in the current folder, which keeps them for the whole run."""
    return _told(await context.cage.run([context.cage.python, "-I", "-c", _argument(code)], stdin=stdin))


@tool(effect="unsafe", timeout=LONGEST_SECONDS, untrusted=True)
async def shell(context: ToolContext, *, script: Script, stdin: Stdin = "") -> dict[str, object]:
    """Run a shell script: no network, files in the current folder, which keeps them for the whole run."""
    return _told(await context.cage.run(["/bin/sh", "-c", _argument(script)], stdin=stdin))


def _argument(text: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise ToolFailed("the program holds characters that are no UTF-8") from error
    if size > MAX_PROGRAM:
        raise ToolFailed(f"the program has {size} bytes; the most is {MAX_PROGRAM}", hint="Write parts of it into files first.")
    return text


def _told(caged: Caged) -> dict[str, object]:
    answer: dict[str, object] = {"status": caged.status, "stdout": caged.stdout, "stderr": caged.stderr, "seconds": caged.seconds}
    if caged.stopped:
        return {**answer, "stopped": f"all of it was killed: {_TOO_MUCH.get(caged.stopped, caged.stopped)}"}
    if caged.signal:
        # As a shell says it.
        return {**answer, "status": 128 + caged.signal, "stopped": f"signal {caged.signal} ended it"}
    return answer
