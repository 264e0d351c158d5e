"""What can go wrong with a tool server.

    HansaError
    └── ToolServerError            502  tool_server_error
        ├── ToolServerUnavailable  503  tool_server_unavailable   away, slow, or the answer broke off: what was asked may have been done
        ├── ToolServerRefused      502  tool_server_refused       it said no: wrong token, unknown tool, another protocol
        └── ToolServerUnreadable   502  tool_server_unreadable    its answer is not what MCP allows, or too large

Texts hold neither the token nor the path of the endpoint.
"""

from hansa.errors import HansaError


class ToolServerError(HansaError):
    """A tool server did not answer as it should."""

    code, status, title, exit_code = "tool_server_error", 502, "Tool server failed", 69


class ToolServerUnavailable(ToolServerError):
    """It is away, too slow, or its answer broke off: what was asked may have been done nevertheless."""

    code, status, title, retryable = "tool_server_unavailable", 503, "Tool server unavailable", True


class ToolServerRefused(ToolServerError):
    """It understood and said no, or wants something that was not configured: no repetition helps."""

    code, title = "tool_server_refused", "Tool server refused"


class ToolServerUnreadable(ToolServerError):
    """Its answer is not what the protocol allows, or is too large."""

    code, title = "tool_server_unreadable", "Answer of a tool server can't be read"
