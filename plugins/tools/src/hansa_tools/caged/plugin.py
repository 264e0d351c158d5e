"""Registers the tools that run programs in the cage."""

from hansa_sdk import Tool, hookimpl
from hansa_tools.caged.programs import python, shell

HANSA_API_VERSION = 1


@hookimpl
def hansa_tools() -> list[Tool]:
    return [python, shell]
