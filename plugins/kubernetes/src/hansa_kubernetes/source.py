"""Kubernetes Secrets, read from the API server with a service account's token: `GET /api/v1/namespaces/{namespace}/secrets/{name}`.

Needs no library of Kubernetes: one request. Warning: the namespace follows from the tenant, never from what a secret refers to.
"""

import base64
import binascii
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

from hansa_sdk import SecretRefused, SecretServices, SecretSource, SecretUnavailable

URL = "https://kubernetes.default.svc"
TOKEN_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_REASONS = {
    401: "does not know the service account's token",
    403: "does not let the service account get it",
    404: "has no such Secret",
}


class Secrets:
    """Implements `hansa_sdk.SecretSource`."""

    def __init__(self, services: SecretServices) -> None:
        self._http = services.http
        self._url = (services.settings.get("kubernetes_url") or URL).rstrip("/")
        self._token_file = services.settings.get("kubernetes_token_file") or TOKEN_FILE
        self._namespace = services.settings.get("kubernetes_namespace") or "{tenant}"

    async def read(self, tenant: str, path: str) -> Mapping[str, str]:
        namespace = self._namespace.replace("{tenant}", tenant)
        if not _NAME.fullmatch(path):
            raise SecretRefused(f"{path!r} is not the name of a Kubernetes Secret", hint="The path is its name alone.")
        what = f"the Secret {path} of namespace {namespace}"
        answer = await self._get(f"{self._url}/api/v1/namespaces/{namespace}/secrets/{path}")
        if answer.status_code in _REASONS:
            raise SecretRefused(f"{what}: the API server {_REASONS[answer.status_code]} ({answer.status_code})")
        if answer.status_code != 200:
            raise SecretUnavailable(f"{what}: the API server answered {answer.status_code}", retry_after=_retry_after(answer))
        try:
            data: dict[str, str] = answer.json().get("data") or {}
            return {name: base64.b64decode(value, validate=True).decode() for name, value in data.items()}
        except (ValueError, AttributeError, TypeError, binascii.Error):
            raise SecretRefused(f"{what} holds what is not text") from None

    async def _get(self, url: str) -> httpx2.Response:
        try:
            token = Path(self._token_file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SecretUnavailable(f"the token file {self._token_file} can't be read ({type(error).__name__})") from None
        try:
            return await self._http.get(url, headers={"authorization": f"Bearer {token}", "accept": "application/json"})
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise SecretUnavailable(f"the API server {self._url} can't be reached ({type(error).__name__})") from None
        except httpx2.RequestError as error:
            raise SecretRefused(f"the API server can't be asked: {error}", hint="Its address stands in HANSA_SECRETS_ALLOW.") from None


def _retry_after(answer: httpx2.Response) -> float | None:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else None


@asynccontextmanager
async def open_source(services: SecretServices) -> AsyncIterator[SecretSource]:
    """The Secrets of the API server that the settings name."""
    yield Secrets(services)
