"""What a tenant's agents may use: the lists of its Tenant object, asked when objects are applied and again when they are used.

Pure. A list that is left out allows all.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import msgspec

from hansa.egress.judge import target_of
from hansa.egress.narrowing import judge_lists, narrowed
from hansa.egress.refusal import EgressRefused
from hansa_crds import TenantAllowed

WHOSE = "the tenant's list (allowed.egress of its Tenant)"
_SHOWN = 10


class Allowance(msgspec.Struct, frozen=True):
    """The lists of one tenant."""

    lists: TenantAllowed = TenantAllowed()

    def refusal(self, kind: str, names: Iterable[str]) -> str:
        """Why not all of these may be used; empty: they may. `kind` is `models`, `tools` or `plugins`."""
        patterns: tuple[str, ...] | None = getattr(self.lists, kind)
        if patterns is None:
            return ""
        outside = [name for name in names if not any(_pattern(pattern).fullmatch(name) for pattern in patterns)]
        if not outside:
            return ""
        return f"the tenant may not use {_some(outside)}: its Tenant's allowed.{kind} lists {_some(patterns) or 'none'}"

    def endpoint_refusal(self, endpoint: str) -> str:
        """Why requests may not go to an endpoint, as far as the tenant's list says; empty: they may."""
        try:
            with narrowed(WHOSE, self.lists.egress):
                judge_lists(target_of(endpoint))
        except EgressRefused as error:
            return f"{error.detail}. {error.hint}"
        return ""


NO_BOUND = Allowance()


@lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in text.split("*")))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
