"""Registers the built-in tools."""

from hansa_sdk import Tool, hookimpl
from hansa_tools.calculator import calculator
from hansa_tools.clock import clock
from hansa_tools.files import files_list, files_read, files_write
from hansa_tools.git_log import git_log
from hansa_tools.http_get import http_get

HANSA_API_VERSION = 1


@hookimpl
def hansa_tools() -> list[Tool]:
    return [calculator, clock, files_list, files_read, files_write, git_log, http_get]
