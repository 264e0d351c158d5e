"""What an operator may write into a policy, and what is refused at once."""

import msgspec
import pytest

from hansa.egress.judge import judge_url
from hansa.egress.policy import EgressPolicy
from hansa.egress.refusal import EgressRefused, Rule
from hansa.errors import Misconfigured


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "10.0.0.1/8",
        "127.1",
        "host:0",
        "host:99999",
        "host:x",
        "*",
        "*.*",
        "a b",
        "http://host",
        "[::1",
        "user@host",
        "::1/200",
        "host:1:2",
    ],
)
def test_an_entry_that_cannot_be_read_stops_the_start(entry: str) -> None:
    with pytest.raises(Misconfigured):
        EgressPolicy(allow=(entry,))


@pytest.mark.parametrize(("field", "value"), [("max_redirects", 4), ("max_redirects", -1), ("max_bytes", 0)])
def test_a_limit_out_of_range_stops_the_start(field: str, value: int) -> None:
    with pytest.raises(Misconfigured, match=field):
        msgspec.structs.replace(EgressPolicy(), **{field: value})


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("127.0.0.1:11434", "http://127.0.0.1:11434/v1"),
        ("127.0.0.1:11434", "http://[::ffff:127.0.0.1]:11434/v1"),
        ("10.0.0.0/8", "https://10.1.2.3/"),
        ("[fd00::5]:9000", "http://[fd00::5]:9000/"),
        ("fd00::/8", "http://[fd00::5]:8080/"),
        ("localhost:11434", "http://LOCALHOST:11434/"),
        ("vllm.models.svc:8000", "http://vllm.models.svc:8000/v1"),
        ("*.corp.example:9000", "http://a.b.corp.example:9000/"),
    ],
)
def test_an_entry_admits_what_it_lists(entry: str, url: str) -> None:
    assert judge_url(url, EgressPolicy(allow=(entry,))).scheme == url.split(":")[0]


@pytest.mark.parametrize(
    ("entry", "url", "rule"),
    [
        ("127.0.0.1:11434", "http://127.0.0.1:11435/", Rule.ADDRESS),
        ("127.0.0.1:11434", "http://127.0.0.2:11434/", Rule.ADDRESS),
        ("127.0.0.1:11434", "http://127.1:11434/", Rule.NUMERIC),
        ("127.0.0.1:11434", "ftp://127.0.0.1:11434/", Rule.SCHEME),
        ("127.0.0.1:11434", "http://user@127.0.0.1:11434/", Rule.USERINFO),
        ("127.0.0.1:11434", "http://localhost:11434/", Rule.RESERVED_NAME),
        ("10.0.0.0/8", "https://10.1.2.3:22/", Rule.PORT),
        ("*.corp.example", "http://corp.example/", Rule.PLAIN_HTTP),
        ("*.corp.example", "http://xcorp.example/", Rule.PLAIN_HTTP),
        ("host.svc:80", "http://other.svc:80/", Rule.RESERVED_NAME),
    ],
)
def test_an_entry_admits_nothing_else(entry: str, url: str, rule: Rule) -> None:
    with pytest.raises(EgressRefused) as refused:
        judge_url(url, EgressPolicy(allow=(entry,)))
    assert refused.value.rule is rule
