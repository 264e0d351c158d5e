"""Which environment variables of a process objects may name as credentials, and what they hold.

Whoever may apply a ModelProvider or ToolServer chooses the variable and the endpoint that its value is sent to: so the operator,
not the object, says which variables may be chosen. Must not know objects. Warning: `value` is a secret, never part of a text.
"""

import re
from collections.abc import Mapping

import msgspec

from hansa.errors import Misconfigured

OWN = "HANSA_"
"""Variables named so are the platform's own: no pattern admits them."""
_PATTERN = re.compile(r"[A-Za-z0-9_*]+")


class Variables(msgspec.Struct, frozen=True):
    """Variables of `environ` whose names match one of the patterns `allow`, in which `*` stands for any text."""

    environ: Mapping[str, str]
    allow: tuple[str, ...]

    def refusal(self, name: str) -> str:
        """Why a variable may not be named, for people; empty: it may."""
        if name.startswith(OWN):
            return f"variables named {OWN}* are the platform's own and are sent nowhere; name another one"
        if not any(re.fullmatch(pattern.replace("*", ".*"), name) for pattern in self.allow):
            admitted = ", ".join(self.allow) or "none"
            return f"the operator admits no credential variable {name!r}: HANSA_CREDENTIALS_ALLOW admits {admitted}"
        return ""

    def value(self, name: str) -> str:
        """What an admitted variable holds; empty when it is not set, or not admitted."""
        return "" if self.refusal(name) else self.environ.get(name, "")


def admitted(environ: Mapping[str, str], allow: str) -> Variables:
    """Variables admitted by comma-separated patterns. Raises `Misconfigured` for one that is no pattern."""
    patterns = tuple(each.strip() for each in allow.split(",") if each.strip())
    wrong = [each for each in patterns if not _PATTERN.fullmatch(each)]
    if wrong:
        raise Misconfigured(
            f"HANSA_CREDENTIALS_ALLOW: {wrong[0]!r} is not a name or pattern of environment variables",
            hint="It holds names divided by commas, in which * stands for any text: ANTHROPIC_API_KEY,TICKETS_*.",
        )
    return Variables(environ, patterns)
