"""An OpenID provider in a process of its own: discovery, keys, device flow, tokens, refresh. It misbehaves when it is told to.

`python -m doubles.oidc_provider PORT` serves; `OidcProvider` starts one and speaks to it. What a person would do in a browser is
`approve`. Any token can be had from it, also forged ones: `mint`.
"""

import json
import os
import secrets
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import httpx2
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64encode

Json = dict[str, Any]
MAKERS: dict[str, Any] = {
    "ES256": lambda: ECKey.generate_key("P-256", private=True),
    "EdDSA": lambda: OKPKey.generate_key("Ed25519", private=True),
    "RS256": lambda: RSAKey.generate_key(2048, private=True),
}
ALGORITHMS = {"EdDSA": "Ed25519"}


def signed(key: Any, header: Json, claims: Json | bytes, algorithm: str) -> str:
    """A compact JWS, whatever its header says."""
    body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    text = urlsafe_b64encode(json.dumps(header).encode()) + b"." + urlsafe_b64encode(body)
    made = b"" if algorithm == "none" else JWSRegistry.algorithms[ALGORITHMS.get(algorithm, algorithm)].sign(text, key)
    return (text + b"." + urlsafe_b64encode(made)).decode()


class Signer:
    """A key with its name and algorithm."""

    def __init__(self, algorithm: str) -> None:
        self.algorithm = algorithm
        self.kid = secrets.token_hex(4)
        self.key: Key = MAKERS[algorithm]()

    def public(self) -> Json:
        return {**self.key.as_dict(private=False), "kid": self.kid, "alg": self.algorithm, "use": "sig"}


class State:
    """What the provider knows; all of it under one lock."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.lock = threading.Lock()
        self.signers = [Signer("ES256")]
        self.stranger = Signer("ES256")
        self.mode = "ok"
        self.lifetime = 300
        self.fetches = 0
        self.refreshes = 0
        self.devices: dict[str, Json] = {}
        self.refresh: dict[str, Json] = {}

    def claims(self, user: str, groups: list[str]) -> Json:
        now = int(time.time())
        return {
            "iss": self.issuer, "aud": "hansa", "sub": user, "groups": groups, "iat": now, "exp": now + self.lifetime,
            "jti": secrets.token_hex(8), "client_id": "hansa-cli",
        }  # fmt: skip

    def token(self, user: str, groups: list[str], audience: str) -> str:
        signer = self.signers[0]
        header = {"alg": signer.algorithm, "typ": "at+jwt", "kid": signer.kid}
        return signed(signer.key, header, {**self.claims(user, groups), "aud": audience}, signer.algorithm)

    def mint(self, asked: Json) -> str:
        """A token as asked: `claims` and `header` replace (null removes), `by` says which key signs."""
        signer = {"previous": self.signers[-1], "stranger": self.stranger}.get(asked.get("by", ""), self.signers[0])
        header = {"alg": signer.algorithm, "typ": "at+jwt", "kid": self.signers[0].kid if signer is self.stranger else signer.kid}
        claims = self.claims(asked.get("user", "ada"), asked.get("groups", []))
        header = {name: value for name, value in {**header, **asked.get("header", {})}.items() if value is not None}
        claims = {name: value for name, value in {**claims, **asked.get("claims", {})}.items() if value is not None}
        if asked.get("by") == "public":  # HS256, with the public key as the secret: a confused verifier takes it
            return signed(OctKey.import_key(json.dumps(signer.public())), {**header, "alg": "HS256"}, claims, "HS256")
        return signed(signer.key, header, claims, "none" if asked.get("by") == "nobody" else signer.algorithm)

    def rotate(self, algorithm: str, *, keep: bool) -> None:
        self.signers = [Signer(algorithm), *(self.signers if keep else [])]

    def granted(self, user: str, groups: list[str], audience: str) -> Json:
        again = secrets.token_urlsafe(16)
        self.refresh[again] = {"user": user, "groups": groups, "audience": audience}
        return {
            "access_token": self.token(user, groups, audience),
            "token_type": "Bearer",
            "expires_in": self.lifetime,
            "refresh_token": again,
        }


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    state: State
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/facts":
            self._answer({"fetches": self.state.fetches, "refreshes": self.state.refreshes, "open": len(self.state.refresh)})
        elif not self._well():
            return
        elif path == "/.well-known/openid-configuration":
            at = self.state.issuer
            self._answer(
                {
                    "issuer": "https://somebody.else.example" if self.state.mode == "impostor" else at,
                    "jwks_uri": f"{at}/jwks",
                    "token_endpoint": f"{at}/token",
                    "device_authorization_endpoint": f"{at}/device_authorization",
                    "revocation_endpoint": f"{at}/revoke",
                }
            )
        elif path == "/jwks":
            with self.state.lock:
                self.state.fetches += 1
                self._answer({"keys": [each.public() for each in self.state.signers]})
        elif path == "/activate":
            with self.state.lock:
                self._activate(dict(urllib.parse.parse_qsl(query)))
        else:
            self._answer({"error": "not_found"}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        with self.state.lock:
            if self.path == "/control":
                self._control(json.loads(body))
            elif self.path == "/mint":
                self._answer({"token": self.state.mint(json.loads(body))})
            elif self._well():
                form = dict(urllib.parse.parse_qsl(body.decode()))
                if self.path == "/device_authorization":
                    self._device(form)
                elif self.path == "/token":
                    self._token(form)
                elif self.path == "/revoke":
                    self.state.refresh.pop(form.get("token", ""), None)
                    self._answer({})
                else:
                    self._answer({"error": "not_found"}, 404)

    def _control(self, asked: Json) -> None:
        self.state.mode = asked.get("mode", self.state.mode)
        self.state.lifetime = asked.get("lifetime", self.state.lifetime)
        if "rotate" in asked:
            self.state.rotate(asked["rotate"], keep=asked.get("keep", True))
        self._answer({})

    def _well(self) -> bool:
        """Whether to go on; else it has misbehaved."""
        match self.state.mode:
            case "down":
                self._answer({"error": "down"}, 503)
            case "garbage":
                self._send(b"<html>maintenance</html>", 200)
            case "slow":
                time.sleep(30)
                self.close_connection = True
            case _:
                return True
        return False

    def _device(self, form: dict[str, str]) -> None:
        if form.get("client_id") != "hansa-cli":
            return self._answer({"error": "invalid_client", "error_description": "there is no such client"}, 401)
        code, shown = secrets.token_urlsafe(16), secrets.token_hex(4).upper()
        self.state.devices[code] = {"user_code": shown, "state": "pending", "audience": form.get("audience", "hansa")}
        page = f"{self.state.issuer}/activate"
        self._answer(
            {
                "device_code": code, "user_code": shown, "verification_uri": page, "interval": 0.2, "expires_in": 60,
                "verification_uri_complete": f"{page}?user_code={shown}",
            }
        )  # fmt: skip
        return None

    def _activate(self, form: dict[str, str]) -> None:
        for device in self.state.devices.values():
            if device["user_code"] == form.get("user_code"):
                device |= {"state": form.get("say", "approved"), "user": form.get("user", ""), "groups": form.get("groups", "").split()}
                return self._answer({"said": device["state"]})
        return self._answer({"error": "no such code"}, 404)

    def _token(self, form: dict[str, str]) -> None:
        if form.get("grant_type") == "refresh_token":
            known = self.state.refresh.pop(form.get("refresh_token", ""), None)
            self.state.refreshes += known is not None
            return self._answer({"error": "invalid_grant"}, 400) if known is None else self._answer(self.state.granted(**known))
        if self.state.mode == "slow_down":
            return self._answer({"error": "slow_down"}, 400)
        device = self.state.devices.get(form.get("device_code", ""), {"state": "expired"})
        match device["state"]:
            case "approved":
                del self.state.devices[form["device_code"]]
                return self._answer(self.state.granted(device["user"], device["groups"], device["audience"]))
            case "denied":
                return self._answer({"error": "access_denied"}, 400)
            case "expired":
                return self._answer({"error": "expired_token"}, 400)
            case _:
                return self._answer({"error": "authorization_pending"}, 400)

    def _answer(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), status)

    def _send(self, body: bytes, status: int) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class OidcProvider:
    """A running provider, as tests speak to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx2.Client(base_url=url, timeout=20, trust_env=False, verify=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._client.close()

    def control(self, **asked: Any) -> None:
        """`mode`: ok, down, slow, garbage, impostor, slow_down; `lifetime` of tokens; `rotate`: an algorithm, `keep`: the old keys."""
        self._client.post("/control", json=asked).raise_for_status()

    def mint(self, **asked: Any) -> str:
        """A token, see `State.mint`."""
        return self._client.post("/mint", json=asked).json()["token"]

    def activate(self, user_code: str, *, say: str = "approved", user: str = "ada", groups: str = "") -> None:
        """What the person does in the browser."""
        query = {"user_code": user_code, "say": say, "user": user, "groups": groups}
        self._client.get("/activate", params=query).raise_for_status()

    def facts(self) -> Json:
        """How often keys were fetched and tokens refreshed, and how many refresh tokens are good."""
        return self._client.get("/facts").json()


@contextmanager
def oidc_provider(port: int) -> Iterator[OidcProvider]:
    """Start one on a free port, and end it."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    process = subprocess.Popen([sys.executable, "-m", "doubles.oidc_provider", str(port)], env=env, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with OidcProvider(f"http://127.0.0.1:{port}") as found:
            yield found
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def main() -> None:
    port = int(sys.argv[1])
    Handler.state = State(f"http://127.0.0.1:{port}")
    server = Server(("127.0.0.1", port), Handler)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
