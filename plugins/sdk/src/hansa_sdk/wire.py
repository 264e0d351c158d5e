"""What every provider over HTTP needs: the endpoint's address, the pause a server asks for, and quoting what it says.

Warning: what a server says is shown to users; `quoted` takes the credential out of it first.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2

from hansa_sdk.errors import ProviderRefused
from hansa_sdk.llm import ProviderConfig

MAX_QUOTED = 300


def endpoint_url(config: ProviderConfig, endpoint: str, *, form: str) -> httpx2.URL:
    """The address of an endpoint. Raises `ProviderRefused` saying that `form` is expected when it is none."""
    try:
        url = httpx2.URL(endpoint)
    except httpx2.InvalidURL as error:
        raise ProviderRefused(f"the endpoint of provider {config.name!r} is not an address: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ProviderRefused(f"the endpoint of provider {config.name!r} is not an http address: {endpoint!r}", hint=f"Write it as {form}.")
    return url


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as the server asked, from `Retry-After` in seconds or as a date (RFC 9110); None when it does not say."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def quoted(text: str, config: ProviderConfig) -> str:
    """`text` on one line, without the provider's credential, at most 300 characters."""
    if config.credential:
        text = text.replace(config.credential, "***")
    text = " ".join(text.split())
    return text if len(text) <= MAX_QUOTED else text[:MAX_QUOTED] + " ..."
