"""The keys of issuers, fetched through the egress door and kept: new ones are looked for every 10 minutes, and when a token names a key
that is not known, once a minute at most. Known keys stay good for a day when the issuer can't be reached, as it is then.

Warning: which address is fetched follows from the Tenant object alone, never from a token.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping

import msgspec
import structlog

from hansa import clock
from hansa.auth import jwks
from hansa.auth.jwks import VerifyingKey
from hansa.egress.client import HttpClient, RequestFailed
from hansa.egress.policy import EgressPolicy
from hansa.egress.refusal import EgressRefused, EgressTooLarge
from hansa.errors import Unauthenticated, Unavailable

log = structlog.stdlib.get_logger("hansa.auth")
FRESH_SECONDS = 600.0
AHEAD_SECONDS = 480.0
"""From this age on keys are fetched anew while requests go on with them, so that none waits for it."""
STALE_SECONDS = 86_400.0
UNKNOWN_SECONDS = 60.0
RETRY_SECONDS = 5.0
FETCH_SECONDS = 8.0
MAX_ISSUERS = 1000
MAX_BYTES = 262_144


def policy(allow: tuple[str, ...]) -> EgressPolicy:
    """What the door lets out to issuers: https to the public Internet, and what the operator has listed."""
    return EgressPolicy(allow=allow, max_bytes=MAX_BYTES, connect_timeout=4.0, read_timeout=4.0)


class Place(msgspec.Struct, frozen=True):
    """Where an issuer's keys are. Without `jwks_uri` its discovery document says it."""

    issuer: str
    jwks_uri: str | None = None


class _Discovery(msgspec.Struct, frozen=True):
    issuer: str
    jwks_uri: str


class _Kept(msgspec.Struct):
    """What is known of one issuer. Times are monotonic."""

    keys: Mapping[str, VerifyingKey] = {}
    fetched: float | None = None
    tried: float | None = None
    looked: float | None = None
    failure: str = ""
    fetching: asyncio.Task[None] | None = None


class IssuerKeys:
    """The keys of all issuers in use, while it is entered. `http` is the door's client, under `policy`, and is closed with it."""

    def __init__(self, http: HttpClient, *, monotonic: Callable[[], float] = clock.monotonic, patience: float = FETCH_SECONDS) -> None:
        """`patience`: seconds that an issuer has for all that it is asked at once."""
        self._http = http
        self._monotonic = monotonic
        self._patience = patience
        self._kept: OrderedDict[Place, _Kept] = OrderedDict()

    async def __aenter__(self) -> "IssuerKeys":
        return self

    async def __aexit__(self, *failure: object) -> None:
        tasks = [kept.fetching for kept in self._kept.values() if kept.fetching is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._http.aclose()

    def known(self, place: Place, kid: str) -> VerifyingKey | None:
        """A key that is fresh enough to need no look; None says nothing."""
        kept = self._kept.get(place)
        if kept is None or kept.fetched is None or self._monotonic() - kept.fetched >= AHEAD_SECONDS:
            return None
        return _named(kept, kid)

    async def find(self, place: Place, kid: str) -> VerifyingKey:
        """The key of a name. Raises `Unauthenticated` when the issuer has none, `Unavailable` when that can't be told."""
        kept = self._kept.setdefault(place, _Kept())
        self._kept.move_to_end(place)
        while len(self._kept) > MAX_ISSUERS:
            self._kept.popitem(last=False)
        now = self._monotonic()
        age = STALE_SECONDS if kept.fetched is None else now - kept.fetched
        due, unknown = age >= FRESH_SECONDS, _named(kept, kid) is None
        if due:
            pause = RETRY_SECONDS if age >= STALE_SECONDS else UNKNOWN_SECONDS
            may = kept.tried is None or now - kept.tried >= pause
        else:
            may = unknown and (kept.looked is None or now - kept.looked >= UNKNOWN_SECONDS)
            kept.looked = now if may else kept.looked
        if may or ((due or unknown) and kept.fetching is not None):
            await self._fetch(place, kept)
        elif age >= AHEAD_SECONDS and kept.fetching is None and (kept.tried is None or now - kept.tried >= UNKNOWN_SECONDS):
            self._begin(place, kept)
        return self._judged(kept, kid)

    def _judged(self, kept: _Kept, kid: str) -> VerifyingKey:
        now = self._monotonic()
        if kept.fetched is None or now - kept.fetched >= STALE_SECONDS:
            raise Unavailable("the keys of the token's issuer can't be had now", hint="Try again shortly.", retry_after=RETRY_SECONDS)
        found = _named(kept, kid)
        if found is not None:
            return found
        if kept.failure:
            raise Unavailable("the token's key is not known, and its issuer can't be asked now", retry_after=UNKNOWN_SECONDS)
        raise Unauthenticated("the token's key (kid) is none of its issuer's", hint="Get a new token; `hansa login` does that.")

    async def _fetch(self, place: Place, kept: _Kept) -> None:
        """Fetch once for all that wait for it; whoever waits may be canceled alone."""
        await asyncio.shield(kept.fetching or self._begin(place, kept))

    def _begin(self, place: Place, kept: _Kept) -> asyncio.Task[None]:
        kept.tried = self._monotonic()
        kept.fetching = asyncio.create_task(self._renew(place, kept), name="auth.keys")
        return kept.fetching

    async def _renew(self, place: Place, kept: _Kept) -> None:
        try:
            async with asyncio.timeout(self._patience):
                kept.keys = await self._read(place)
            kept.fetched, kept.failure = self._monotonic(), ""
        except TimeoutError:
            kept.failure = "it does not answer in time"
        except (EgressRefused, EgressTooLarge, RequestFailed, ValueError) as error:
            kept.failure = str(error) or type(error).__name__
        finally:
            kept.fetching = None
        if kept.failure:
            log.warning("auth.keys_not_fetched", issuer=place.issuer, reason=kept.failure)

    async def _read(self, place: Place) -> Mapping[str, VerifyingKey]:
        address = place.jwks_uri
        if address is None:
            document = await self._get(f"{place.issuer.rstrip('/')}/.well-known/openid-configuration")
            try:
                found = msgspec.json.decode(document, type=_Discovery)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                raise ValueError("its discovery document can't be read") from None
            if found.issuer != place.issuer:
                raise ValueError("its discovery document is that of another issuer")
            address = found.jwks_uri
        return jwks.read(await self._get(address))

    async def _get(self, address: str) -> bytes:
        answer = await self._http.get(address, headers={"accept": "application/json"})
        if answer.status_code != 200:
            raise ValueError(f"it answers {answer.status_code}")
        return answer.content


def _named(kept: _Kept, kid: str) -> VerifyingKey | None:
    """The key of a name. A token that names none can only mean an issuer's one key."""
    if kid:
        return kept.keys.get(kid)
    return next(iter(kept.keys.values())) if len(kept.keys) == 1 else None
