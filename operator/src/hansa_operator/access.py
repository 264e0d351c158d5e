"""How the API server is reached: by a kubeconfig, or by the service account of the pod. Read from files, nothing is asked."""

import base64
import binascii
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import yaml

from hansa_operator.errors import Misconfigured

POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_SECONDS = 60.0
"""How long a token is used before its file is read again: Kubernetes changes it within the hour."""


class Access(msgspec.Struct, frozen=True):
    """Where the API server is and who we are. Data are PEM texts; `token_file` wins over `token`."""

    server: str
    ca: str = ""
    token: str = ""
    token_file: str = ""
    certificate: str = ""
    key: str = ""
    namespace: str = ""

    def trust(self, folder: Path) -> ssl.SSLContext | None:
        """The TLS context; None for plain HTTP. `folder`: for the client's certificate, which Python loads from files only."""
        if not self.server.startswith("https:"):
            return None
        context = ssl.create_default_context(cadata=self.ca or None)
        if self.certificate:
            cert = folder / "client.crt"
            key = folder / "client.key"
            key.touch(mode=0o600)
            cert.write_text(self.certificate)
            key.write_text(self.key)
            context.load_cert_chain(cert, key)
        return context


class Bearer:
    """The token of an access, read again now and then."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._token = access.token
        self._until = 0.0

    def token(self) -> str:
        """The token as it is now; that of before while its file can't be read."""
        if self._access.token_file and time.monotonic() >= self._until:
            with suppress(OSError):
                self._token = Path(self._access.token_file).read_text().strip() or self._token
            self._until = time.monotonic() + TOKEN_SECONDS
        return self._token

    def headers(self) -> Mapping[str, str]:
        """What a request says of who asks."""
        token = self.token()
        return {"accept": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}


def access_of(kubeconfig: str, environ: Mapping[str, str]) -> Access:
    """By the current context of a kubeconfig, or, if that is empty, as a pod. Raises `Misconfigured`."""
    return _of_kubeconfig(Path(kubeconfig)) if kubeconfig else _of_pod(environ)


def _of_pod(environ: Mapping[str, str]) -> Access:
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise Misconfigured("HANSA_OPERATOR_KUBECONFIG is not set, and this is no pod with a service account")
    try:
        ca, namespace = (POD / "ca.crt").read_text(), (POD / "namespace").read_text().strip()
    except OSError as error:
        raise Misconfigured(f"the pod's service account can't be read: {error}") from None
    shown = f"[{host}]" if ":" in host else host
    return Access(f"https://{shown}:{port}", ca=ca, token_file=str(POD / "token"), namespace=namespace)


def _of_kubeconfig(path: Path) -> Access:
    try:
        loaded: Any = yaml.safe_load(path.read_text())
        context = _named(loaded, "contexts", "context", loaded["current-context"])
        cluster = _named(loaded, "clusters", "cluster", context["cluster"])
        user = _named(loaded, "users", "user", context["user"])
        server = str(cluster["server"])
        if "exec" in user or "auth-provider" in user:
            raise Misconfigured(
                f"HANSA_OPERATOR_KUBECONFIG={path}: plugins of kubectl for logging in are not run; give a token or a certificate"
            )
        return Access(
            server.rstrip("/"),
            ca=_text(path, cluster, "certificate-authority"),
            token=str(user.get("token", "")),
            token_file=str(path.parent / user["tokenFile"]) if user.get("tokenFile") else "",
            certificate=_text(path, user, "client-certificate"),
            key=_text(path, user, "client-key"),
            namespace=str(context.get("namespace", "")),
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, binascii.Error, UnicodeDecodeError) as error:
        raise Misconfigured(f"HANSA_OPERATOR_KUBECONFIG={path} can't be used: {type(error).__name__}: {error}") from None


def _named(loaded: Any, group: str, field: str, name: str) -> Any:
    entries: list[Any] = loaded[group]
    found: list[Any] = [each[field] for each in entries if each["name"] == name]
    if not found:
        raise KeyError(f"no {field} is called {name!r}")
    return found[0]


def _text(path: Path, holder: Any, name: str) -> str:
    """A PEM text, in the file itself or in one that it names."""
    if holder.get(f"{name}-data"):
        return base64.b64decode(holder[f"{name}-data"], validate=True).decode()
    return (path.parent / holder[name]).read_text() if holder.get(name) else ""
