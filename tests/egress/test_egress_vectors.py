"""Every known way to write a forbidden URL is refused before a byte is sent, for the reason it should be."""

import re
import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress.doubles import ListedResolver, Loopback
from hansa.egress.client import open_client
from hansa.egress.judge import judge_answers, judge_url
from hansa.egress.policy import EgressPolicy
from hansa.egress.refusal import EgressRefused, Rule

LIBERAL = EgressPolicy(allow_http=True, allow_literals=True, max_redirects=3)
TRUSTING_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
DOUBLES = ("https://rebind.test/", "https://mixed.test/", "https://redirect.test/")


def _vectors(kind: str) -> tuple[str, ...]:
    lines = Path(__file__).with_name("ssrf_vectors.txt").read_text(encoding="utf-8").splitlines()
    return tuple(re.split(r"\s{2,}", line.removeprefix(kind).strip())[0] for line in lines if line.startswith(f"{kind} "))


def test_all_vectors_are_read() -> None:
    assert (len(_vectors("deny")), len(_vectors("allow"))) == (51, 3)
    assert set(DOUBLES) < set(_vectors("deny"))


@pytest.mark.parametrize("url", tuple(url for url in _vectors("deny") if url not in DOUBLES))
@pytest.mark.parametrize("policy", [EgressPolicy(), LIBERAL], ids=("default", "liberal"))
async def test_a_denied_url_is_refused_before_its_name_is_looked_up(url: str, policy: EgressPolicy) -> None:
    resolver = ListedResolver()
    async with open_client(policy, resolver, tls=TRUSTING_NOBODY) as client:
        with pytest.raises(EgressRefused):
            await client.get(url)
    assert resolver.lookups == []


@pytest.mark.parametrize("url", _vectors("allow"))
def test_an_allowed_url_passes(url: str) -> None:
    assert judge_url(url, LIBERAL).host in ("example.com", "93.184.216.34")


def test_a_public_literal_needs_a_policy_that_allows_it() -> None:
    with pytest.raises(EgressRefused) as plain:
        judge_url("http://93.184.216.34/", EgressPolicy(allow_literals=True))
    assert plain.value.rule is Rule.PLAIN_HTTP
    with pytest.raises(EgressRefused) as literal:
        judge_url("http://93.184.216.34/", EgressPolicy(allow_http=True))
    assert literal.value.rule is Rule.LITERAL


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://2130706433/", Rule.NUMERIC),
        ("http://1.2.3.0x7f/", Rule.NUMERIC),
        ("http://127.1./", Rule.NUMERIC),
        ("http://[::ffff:127.0.0.1]/", Rule.ADDRESS),
        ("http://[64:ff9b::a9fe:a9fe]/", Rule.ADDRESS),
        ("http://[::127.0.0.1]/", Rule.ADDRESS),
        ("http://192.0.0.192/", Rule.ADDRESS),
        ("http://168.63.129.16/", Rule.ADDRESS),
        ("http://[fe80::1%25eth0]/", Rule.ZONE),
        ("http://127。0。0。1/", Rule.ADDRESS),
        ("http://\uff11\uff12\uff17.0.0.1/", Rule.UNICODE),
        ("http://example.com#@127.0.0.1/", Rule.AMBIGUOUS),
        ("http://example.com?@127.0.0.1/", Rule.AMBIGUOUS),
        ("http://127.0.0.1\\@example.com/", Rule.BACKSLASH),
        ("http://user:pw@example.com/", Rule.USERINFO),
        ("http://exa%6dple.com/", Rule.HOST),
        ("http://-example.com/", Rule.HOST),
        ("http://example..com/", Rule.HOST),
        ("http://example.com:99999/", Rule.PORT),
        ("http://example.com:\uff18\uff10/", Rule.UNICODE),
        ("http://example.com:+80/", Rule.MALFORMED),
        ("http://metadata.google.internal/", Rule.RESERVED_NAME),
        ("http://a.b.localhost/", Rule.RESERVED_NAME),
        ("http://postgres/", Rule.SINGLE_LABEL),
        ("http://example.com/\r\nX: 1", Rule.CONTROL),
        ("http://example.com/?q=%00", Rule.CONTROL),
        ("http://exa\u00a0mple.com/", Rule.BLANK),
        ("ws://example.com/", Rule.SCHEME),
        ("http:///", Rule.NO_HOST),
    ],
)
def test_a_refusal_names_its_rule(url: str, rule: Rule) -> None:
    with pytest.raises(EgressRefused) as refused:
        judge_url(url, LIBERAL)
    assert refused.value.rule is rule


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://EXAMPLE.com./a?next=https://a@b",
        "https://münchen.de/",
        "https://[2606:4700::1111]/",
        "https://a_b.example.com:443/#x",
    ],
)
def test_an_ordinary_url_passes(url: str) -> None:
    assert judge_url(url, LIBERAL).port == 443


def test_a_refusal_says_what_to_do_and_keeps_secrets_to_itself() -> None:
    with pytest.raises(EgressRefused) as refused:
        judge_url("https://10.0.0.7/hook?token=opensesame", LIBERAL)
    assert (refused.value.status, refused.value.code) == (422, "egress_refused")
    assert "https://10.0.0.7:443" in refused.value.detail
    assert "private" in refused.value.detail
    assert "allow-list" in refused.value.hint
    assert "opensesame" not in refused.value.detail + refused.value.hint


_FORBIDDEN_V4 = st.one_of(
    *(
        st.ip_addresses(v=4, network=network)
        for network in (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "224.0.0.0/3",
        )
    )
)


@given(address=_FORBIDDEN_V4)
def test_no_spelling_of_a_forbidden_address_passes(address: object) -> None:
    dotted = str(address)
    a, b, c, d = (int(part) for part in dotted.split("."))
    number = (a << 24) + (b << 16) + (c << 8) + d
    spellings = (
        dotted,
        f"{dotted}.",
        str(number),
        hex(number),
        f"0{number:o}",
        f"{a}.{(b << 16) + (c << 8) + d}",
        f"{a}.{b}.{(c << 8) + d}",
        f"0{a:o}.{b}.{c}.{d}",
        f"0x{a:x}.{b}.{c}.{d}",
        f"[::ffff:{dotted}]",
        f"[::ffff:{number >> 16:x}:{number & 0xFFFF:x}]",
        f"[::{dotted}]",
        f"[64:ff9b::{dotted}]",
        f"[64:ff9b:1::{dotted}]",
        f"[2002:{number >> 16:x}:{number & 0xFFFF:x}::1]",
    )
    for spelling in spellings:
        with pytest.raises(EgressRefused):
            judge_url(f"http://{spelling}/", LIBERAL)
    with pytest.raises(EgressRefused):
        judge_answers("example.com", 80, answers=["93.184.216.34", dotted], policy=LIBERAL)


@given(text=st.text(max_size=60))
def test_whatever_is_asked_the_judge_answers_or_refuses(text: str) -> None:
    for url in (text, f"http://{text}", f"https://example.com{text}"):
        try:
            target = judge_url(url, LIBERAL)
        except EgressRefused:
            continue
        assert target.port in LIBERAL.ports


async def test_a_mixed_answer_refuses_the_name(loopback: Loopback) -> None:
    resolver = ListedResolver(mixed_test=[["93.184.216.34", "127.0.0.1"]])
    policy = EgressPolicy(allow_http=True, ports=(loopback.port,))
    async with open_client(policy, resolver) as client:
        with pytest.raises(EgressRefused, match=r"mixed\.test:\d+, which is 127\.0\.0\.1, .* loopback"):
            await client.get(f"http://mixed.test:{loopback.port}/")
    assert resolver.lookups == ["mixed.test"]
    assert loopback.connections == 0
