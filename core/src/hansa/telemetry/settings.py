"""What the environment says of metrics."""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from hansa.errors import FieldError, Misconfigured
from hansa.settings import env, group


class MetricsSettings(msgspec.Struct, frozen=True):
    """Where metrics are shown, at `/metrics` by plain HTTP."""

    host: Annotated[str, env("HANSA_METRICS_HOST")] = "127.0.0.1"
    """Address to listen on. Whoever can connect reads them: they say nothing of any tenant, and how busy all of them are."""
    serve_port: Annotated[int, env("HANSA_METRICS_SERVE_PORT")] = 0
    """Port of a control plane's metrics; 0: it shows none."""
    worker_port: Annotated[int, env("HANSA_METRICS_WORKER_PORT")] = 0
    """Port of a worker's metrics; 0: it shows none. Workers on one machine need one each."""


def load(environ: Mapping[str, str]) -> MetricsSettings:
    """Read the settings. Raises `Misconfigured`."""
    errors: list[FieldError] = []
    found = group(MetricsSettings, environ, errors)
    if errors or not isinstance(found, MetricsSettings):
        raise Misconfigured("; ".join(f"{each.path}: {each.message}" for each in errors), errors=tuple(errors))
    return found
