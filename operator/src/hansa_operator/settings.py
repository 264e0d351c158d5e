"""Every setting of the operator, read once from the environment at start.

Each field names its variable and is followed by a docstring: unit, default and the reason for it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_type_hints

import msgspec

from hansa_operator.errors import Misconfigured

WEEK = 604_800.0
"""The longest of all pauses, in seconds: what is meant to be never must be said otherwise."""


def env(name: str, **bounds: Any) -> msgspec.Meta:
    """The environment variable that a field is read from, and what its value may be, in msgspec's words."""
    return msgspec.Meta(extra={"env": name}, **bounds)


class OperatorSettings(msgspec.Struct, frozen=True):
    """The Kubernetes operator, `hansa-operator`."""

    url: Annotated[str, env("HANSA_OPERATOR_URL")] = ""
    """Address of the control plane's API. Needed."""
    key_file: Annotated[str, env("HANSA_OPERATOR_KEY_FILE")] = ""
    """File with an API key that has the role `reconciler`. Needed; read again when the control plane does not know the key any more."""
    ca_file: Annotated[str, env("HANSA_OPERATOR_CA_FILE")] = ""
    """PEM file with the authorities that the control plane's certificate must come from; empty: those of the system."""
    kubeconfig: Annotated[str, env("HANSA_OPERATOR_KUBECONFIG")] = ""
    """Kubeconfig to reach the API server with, by its current context; empty: the service account of the pod."""
    namespace: Annotated[str, env("HANSA_OPERATOR_NAMESPACE")] = ""
    """Namespace of the Lease and of dedicated workers; empty: that of the pod, or `hansa-system`."""
    origin: Annotated[str, env("HANSA_OPERATOR_ORIGIN")] = ""
    """What this cluster is called as the owner of objects; empty: the uid of its namespace kube-system. Two clusters need two."""
    identity: Annotated[str, env("HANSA_OPERATOR_IDENTITY")] = ""
    """Name of this process in the Lease; empty: the host's name and a random part."""
    host: Annotated[str, env("HANSA_OPERATOR_HOST")] = "127.0.0.1"
    """Address that metrics and probes listen on. Loopback by default; in a pod `0.0.0.0`."""
    port: Annotated[int, env("HANSA_OPERATOR_PORT", ge=0, le=65_535)] = 8080
    """Port of `/metrics`, `/livez` and `/readyz`; 0 takes a free one."""
    log_format: Annotated[str, env("HANSA_OPERATOR_LOG_FORMAT", pattern="^(json|text)$")] = "json"
    """`json`, one object a line, or `text`."""
    log_level: Annotated[str, env("HANSA_OPERATOR_LOG_LEVEL", pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    """Least level that is logged: DEBUG, INFO, WARNING or ERROR."""
    concurrency: Annotated[int, env("HANSA_OPERATOR_CONCURRENCY", ge=1)] = 256
    """Reconciles at once. They mostly wait, and what waits for the control plane together is sent in one request."""
    connections: Annotated[int, env("HANSA_OPERATOR_CONNECTIONS", ge=1)] = 32
    """Requests at once to the API server, which has other clients too."""
    batch: Annotated[int, env("HANSA_OPERATOR_BATCH", ge=1, le=500)] = 200
    """Most objects in one request to the control plane, which takes 500."""
    backoff_least_seconds: Annotated[float, env("HANSA_OPERATOR_BACKOFF_LEAST_SECONDS", gt=0.0, le=WEEK)] = 1.0
    """Pause after the first failure of an object; doubled after each further one, and jittered."""
    backoff_most_seconds: Annotated[float, env("HANSA_OPERATOR_BACKOFF_MOST_SECONDS", gt=0.0, le=WEEK)] = 300.0
    """Longest pause between attempts."""
    lease_seconds: Annotated[float, env("HANSA_OPERATOR_LEASE_SECONDS", gt=0.0, le=WEEK)] = 10.0
    """How long a leader that has fallen silent stays the leader; then a standby takes over."""
    renew_seconds: Annotated[float, env("HANSA_OPERATOR_RENEW_SECONDS", gt=0.0, le=WEEK)] = 2.0
    """Pause between renewals of the Lease, and between a standby's looks at it. A leader that could not renew for two thirds of the
    lease stops."""
    resync_seconds: Annotated[float, env("HANSA_OPERATOR_RESYNC_SECONDS", gt=0.0, le=WEEK)] = 600.0
    """Pause between comparisons of everything with the control plane and the cluster, with a jitter of a tenth. What has drifted is
    repaired."""
    look_seconds: Annotated[float, env("HANSA_OPERATOR_LOOK_SECONDS", gt=0.0, le=WEEK)] = 30.0
    """Pause between looks whether watches have missed something; those that have are opened anew."""
    state_seconds: Annotated[float, env("HANSA_OPERATOR_STATE_SECONDS", gt=0.0, le=WEEK)] = 10.0
    """Pause between looks at how tenants are, and at what is not ready yet, in the control plane."""
    grace_seconds: Annotated[float, env("HANSA_OPERATOR_GRACE_SECONDS", gt=0.0, le=WEEK)] = 10.0
    """Seconds that reconciles under way are given after SIGTERM."""
    worker_deployment: Annotated[str, env("HANSA_OPERATOR_WORKER_DEPLOYMENT")] = ""
    """Deployment in the operator's namespace of which a tenant with `isolation.workers: Dedicated` gets a copy of its own; empty: none is
    made, and whoever runs the workers starts them."""


NEEDED = ("HANSA_OPERATOR_URL", "HANSA_OPERATOR_KEY_FILE")


def variables() -> dict[str, str]:
    """Every variable and its default as text; empty: none."""
    defaults = msgspec.to_builtins(OperatorSettings())
    return {name: str(defaults[field]) for field, (name, _) in _fields().items()}


def _fields() -> dict[str, tuple[str, Any]]:
    """The variable and the type of each field."""
    found: dict[str, tuple[str, Any]] = {}
    for field, hint in get_type_hints(OperatorSettings, include_extras=True).items():
        (meta,) = (each for each in get_args(hint) if isinstance(each, msgspec.Meta))
        found[field] = (str((meta.extra or {})["env"]), hint)
    return found


def load(environ: Mapping[str, str]) -> OperatorSettings:
    """The settings that an environment holds; an empty variable counts as absent. Raises `Misconfigured`."""
    given: dict[str, Any] = {}
    for field, (name, kind) in _fields().items():
        text = environ.get(name, "").strip()
        if not text:
            continue
        try:
            given[field] = msgspec.convert(text, kind, strict=False)
        except msgspec.ValidationError as error:
            raise Misconfigured(f"{name}={text!r}: {error}") from None
    found = OperatorSettings(**given)
    for name in NEEDED:
        if not environ.get(name, "").strip():
            raise Misconfigured(f"{name} is not set")
    if found.renew_seconds > found.lease_seconds / 3:
        raise Misconfigured("HANSA_OPERATOR_RENEW_SECONDS must be at most a third of HANSA_OPERATOR_LEASE_SECONDS")
    if found.backoff_least_seconds > found.backoff_most_seconds:
        raise Misconfigured("HANSA_OPERATOR_BACKOFF_LEAST_SECONDS must be at most HANSA_OPERATOR_BACKOFF_MOST_SECONDS")
    if not found.url.startswith(("http://", "https://")):
        raise Misconfigured(f"HANSA_OPERATOR_URL={found.url!r} is no http or https address")
    return found
