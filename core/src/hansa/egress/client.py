"""The egress client: an `httpx2.AsyncClient` that asks the judge first.

Must not know who asks, or why. Warning: the client keeps neither cookies nor proxy settings of the environment, since it may be
shared by requests that must not know of each other.
"""

import ssl
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpcore2
import httpx2

from hansa.egress.dial import Resolver, system_resolver
from hansa.egress.judge import judge_text
from hansa.egress.policy import EgressPolicy
from hansa.egress.refusal import EgressRefused, Rule
from hansa.egress.transport import JudgedTransport
from hansa.errors import Misconfigured

HttpClient = httpx2.AsyncClient
"""What callers hold, by a name that does not tie them to the library."""

HttpAnswer = httpx2.Response
"""What comes back, by such a name."""

RequestFailed = httpx2.RequestError
"""What a request may raise: it was refused, not answered, or its answer broke off."""

ConnectionFailed = (httpcore2.NetworkError, httpcore2.TimeoutException)
"""What a connection of `hansa.egress.tunnel` may raise."""

RequestTimedOut = httpx2.TimeoutException
"""The `RequestFailed` of a server that is too slow."""

_KEPT_ACROSS_ORIGINS = frozenset({"accept", "accept-encoding", "accept-language", "host", "user-agent"})


def open_client(policy: EgressPolicy, resolver: Resolver | None = None, *, tls: ssl.SSLContext | None = None) -> httpx2.AsyncClient:
    """Open the door under a policy; use it with `async with`. Requests raise `EgressRefused`, `EgressTooLarge` or httpx2's errors.

    `resolver` replaces the system's; `tls` replaces the system's trust, as for a private certificate authority.
    """
    return EgressClient(policy, JudgedTransport(policy, resolver or system_resolver, tls or system_trust()))


@cache
def system_trust() -> ssl.SSLContext:
    """Trust in the certificate authorities of the system, as they were when this process first asked: to read them takes 40 ms. All
    clients share it, so it must not be changed."""
    return httpx2.create_ssl_context(trust_env=False)


def trusting(ca_file: str) -> ssl.SSLContext | None:
    """Trust in the certificate authority of a PEM file beside the system's; None for an empty name. Raises `Misconfigured`."""
    if not ca_file:
        return None
    tls = httpx2.create_ssl_context(trust_env=False)
    try:
        tls.load_verify_locations(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(f"{ca_file} is not a readable PEM file of certificates", hint="See HANSA_SECRETS_CA_FILE.") from error
    return tls


class EgressClient(httpx2.AsyncClient):
    """Looks at the URL as it was given, which its transport no longer sees, and follows redirects itself, by the policy."""

    def __init__(self, policy: EgressPolicy, transport: JudgedTransport) -> None:
        super().__init__(
            transport=transport,
            trust_env=False,
            follow_redirects=policy.max_redirects > 0,
            headers={"accept-encoding": "gzip", "user-agent": "hansa"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            timeout=httpx2.Timeout(policy.read_timeout, connect=policy.connect_timeout),
        )
        self._policy = policy

    def build_request(self, method: str, url: httpx2.URL | str, **options: Any) -> httpx2.Request:
        judge_text(str(url))
        try:
            return super().build_request(method, url, **options)
        except httpx2.InvalidURL as error:
            raise EgressRefused("the URL", Rule.MALFORMED, str(error)) from error

    async def send(
        self,
        request: httpx2.Request,
        *,
        stream: bool = False,
        auth: Any = httpx2.USE_CLIENT_DEFAULT,
        follow_redirects: Any = httpx2.USE_CLIENT_DEFAULT,
    ) -> httpx2.Response:
        follow = self.follow_redirects if follow_redirects is httpx2.USE_CLIENT_DEFAULT else bool(follow_redirects)
        history: list[httpx2.Response] = []
        response = await super().send(request, stream=True, auth=auth, follow_redirects=False)
        try:
            while follow and response.has_redirect_location:
                following = self._next_hop(response, len(history))
                await response.aclose()
                history.append(response)
                response = await super().send(following, stream=True, auth=None, follow_redirects=False)
            response.history = history
            if not stream:
                await response.aread()
        except BaseException:
            await response.aclose()
            raise
        return response

    def _next_hop(self, response: httpx2.Response, hops: int) -> httpx2.Request:
        asked, following = response.request, response.next_request
        if hops >= self._policy.max_redirects:
            raise httpx2.TooManyRedirects(f"more than {self._policy.max_redirects} redirects", request=asked)
        if following is None:
            raise httpx2.RemoteProtocolError("the answer redirects to an invalid URL", request=asked)
        if following.url.origin != asked.url.origin:
            # Which headers carry credentials is not known here, so only those that never do are kept.
            for header in [name for name in following.headers if name.lower() not in _KEPT_ACROSS_ORIGINS]:
                del following.headers[header]
            if following.method not in ("GET", "HEAD"):
                reason = "a redirect to another origin would hand it the body of the request"
                raise EgressRefused(following.url.host, Rule.REDIRECT_BODY, reason)
        return following
