"""Registers the runtimes."""

from hansa_runtimes.loop import Loop
from hansa_sdk import Runtime, hookimpl

HANSA_API_VERSION = 1


@hookimpl
def hansa_runtimes() -> list[Runtime]:
    return [Loop()]
