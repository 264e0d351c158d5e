"""Words without quotes, by the core schema of YAML 1.2: which of them are nothing, truths or numbers, and which are text.

Must not import anything that takes time: the command line writes YAML by these rules.
"""

import re

NULL = frozenset({"", "~", "null", "Null", "NULL"})
TRUE = frozenset({"true", "True", "TRUE"})
FALSE = frozenset({"false", "False", "FALSE"})
INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NOT_JSON = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def is_text(plain: str) -> bool:
    """Whether a word that stands without quotes is read as text, and not as a number, a truth or nothing."""
    number = INT.fullmatch(plain) or FLOAT.fullmatch(plain) or NOT_JSON.fullmatch(plain)
    return not number and plain not in NULL | TRUE | FALSE
