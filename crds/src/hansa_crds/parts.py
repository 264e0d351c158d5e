"""What all objects are made of: the form of names and values, and the base of every part.

Warning: patterns are written in the dialect that Python, RE2 and ECMAScript share; a value must match from first to last
character (`validation.py` also refuses the trailing newline that Python's `$` lets through).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from msgspec import Meta, Struct

GROUP = "hansa.dev"
VERSION = "v1alpha1"
API_VERSION = "hansa.dev/v1alpha1"

LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
KEY_PATTERN = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
MODEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$"
ALIAS_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:-]*$"
REF_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[A-Za-z0-9][A-Za-z0-9._:/@+-]*$"
PLUGIN_PATTERN = r"^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$"
TOOL_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
APPROVAL_PATTERN = r"^([A-Za-z0-9_][A-Za-z0-9_.-]*|\*)$"
ENV_PATTERN = r"^[A-Z][A-Z0-9_]*$"
MEMBER_PATTERN = r"^[A-Za-z0-9._-]+$"
URL_PATTERN = r"^https?://[A-Za-z0-9.\[\]:_-]+([/?][!$-~]*)?$"
ISSUER_PATTERN = r"^(https://[A-Za-z0-9.:_-]+|http://(127\.0\.0\.1|localhost)(:[0-9]+)?)(/[A-Za-z0-9._~%=/-]*)?$"
CLAIM_PATTERN = r"^[A-Za-z][A-Za-z0-9_.:/-]*$"
SUBJECT_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?:[!-~]([ -~]*[!-~])?$"
WORD_PATTERN = r"^[!-~]+$"
CURRENCY_PATTERN = r"^[A-Z]{3}$"
DESTINATION_PATTERN = (
    r"^((\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*(/[0-9]{1,2})?"
    r"|\[[0-9a-f:.]+(/[0-9]{1,3})?\])(:[0-9]{1,5})?$"
)
ALLOWED_PATTERN = r"^[A-Za-z0-9_*][A-Za-z0-9._:/@+*-]*$"

PATTERN_WORDS: Mapping[str, str] = MappingProxyType(
    {
        LABEL_PATTERN: "lower-case letters, digits and `-`, with a letter or digit at both ends",
        KEY_PATTERN: "letters, digits, `-`, `_` and `.`, with a letter or digit at both ends, after a domain and `/` if there is one",
        LABEL_VALUE_PATTERN: "letters, digits, `-`, `_` and `.`, with a letter or digit at both ends",
        MODEL_PATTERN: "letters, digits and `. _ : / @ + -`, with a letter or digit first",
        ALIAS_PATTERN: "letters, digits and `. _ : -`, with a letter or digit first (a name with `/` is a `ref`)",
        REF_PATTERN: "the name of a ModelProvider, `/`, and a model of it, as in `openai/some-model`",
        PLUGIN_PATTERN: "lower-case letters, digits, `-`, `_` and `.`, with a letter or digit at both ends",
        TOOL_PATTERN: "letters, digits, `_`, `-` and `.`, with a letter, digit or `_` first",
        APPROVAL_PATTERN: "the name of a tool, or `*` for all of the entry",
        MEMBER_PATTERN: "letters, digits, `.`, `_` and `-`",
        ENV_PATTERN: "the name of an environment variable (capitals, digits, `_`), not the secret itself",
        URL_PATTERN: "an address that begins with `http://` or `https://`, without user name, password or `#`",
        ISSUER_PATTERN: "an address that begins with `https://` (or `http://127.0.0.1`, for trying out), without `?` and `#`",
        CLAIM_PATTERN: "the name of a claim: letters, digits and `_ . : / -`, with a letter first",
        SUBJECT_PATTERN: "the name of an issuer of the tenant, `:`, and what it calls the user or group, as in `corp:ada@acme.example`",
        WORD_PATTERN: "printable ASCII without blanks",
        CURRENCY_PATTERN: "three capitals, as in `EUR`",
        DESTINATION_PATTERN: "a host, `*.` and a domain, an address or a network (IPv6 in brackets), each with `:port` or without",
        ALLOWED_PATTERN: "letters, digits and `. _ : / @ + -`, and `*` for any text",
    }
)
"""Each pattern in words, for messages and reference pages."""

DnsLabel = Annotated[str, Meta(min_length=1, max_length=63, pattern=LABEL_PATTERN)]
MetaKey = Annotated[str, Meta(min_length=1, max_length=317, pattern=KEY_PATTERN)]
LabelValue = Annotated[str, Meta(max_length=63, pattern=LABEL_VALUE_PATTERN)]
AnnotationValue = Annotated[str, Meta(max_length=262_144)]
ModelName = Annotated[str, Meta(min_length=1, max_length=253, pattern=MODEL_PATTERN)]
ModelAlias = Annotated[str, Meta(min_length=1, max_length=63, pattern=ALIAS_PATTERN)]
PluginName = Annotated[str, Meta(min_length=1, max_length=63, pattern=PLUGIN_PATTERN)]
SecretKey = Annotated[str, Meta(min_length=1, max_length=253, pattern=MEMBER_PATTERN)]
ToolName = Annotated[str, Meta(min_length=1, max_length=128, pattern=TOOL_PATTERN)]
ToolNameOrAll = Annotated[str, Meta(min_length=1, max_length=128, pattern=APPROVAL_PATTERN)]
Currency = Annotated[str, Meta(pattern=CURRENCY_PATTERN)]
Destination = Annotated[str, Meta(min_length=1, max_length=260, pattern=DESTINATION_PATTERN)]
Allowed = Annotated[str, Meta(min_length=1, max_length=317, pattern=ALLOWED_PATTERN)]
Effect = Literal["read", "idempotent", "keyed", "unsafe"]


class Part(Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """What all parts of an object share: camelCase names outside, unknown fields refused, defaults not written."""
