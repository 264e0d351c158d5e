"""Every setting of Hansa's processes: one Struct a group, read once from the environment at start.

Each field names its variable and is followed by a docstring: unit, default and the reason for it. Must not know what the
settings are used for.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import msgspec

from hansa.errors import FieldError, Misconfigured


def env(name: str) -> msgspec.Meta:
    """The environment variable that a field is read from."""
    return msgspec.Meta(extra={"env": name})


class ServerSettings(msgspec.Struct, frozen=True):
    """The control plane's HTTP server."""

    host: Annotated[str, env("HANSA_SERVER_HOST")] = "127.0.0.1"
    """Address to listen on. Loopback by default: nothing is public until someone says so."""
    port: Annotated[int, env("HANSA_SERVER_PORT")] = 7420
    """TCP port to listen on; 0 takes a free one."""
    fd: Annotated[int, env("HANSA_SERVER_FD")] = -1
    """An inherited listening socket to use instead of host and port; -1: none. `hansa up` uses it to keep the port over restarts."""
    body_bytes: Annotated[int, env("HANSA_SERVER_BODY_BYTES")] = 1_048_576
    """Largest request body in bytes, 1 MiB by default: manifests and inputs are small, artifacts go elsewhere."""
    import_bytes: Annotated[int, env("HANSA_SERVER_IMPORT_BYTES")] = 67_108_864
    """Largest session that is imported, in bytes, 64 MiB by default. It is read as a stream into a file, never whole into memory."""
    bundle_bytes: Annotated[int, env("HANSA_SERVER_BUNDLE_BYTES")] = 4_294_967_296
    """Largest export of a tenant that is imported, in bytes, 4 GiB by default. It is read as a stream into a file of the data folder."""
    body_depth: Annotated[int, env("HANSA_SERVER_BODY_DEPTH")] = 64
    """Deepest nesting of a JSON body; deeper ones are refused before they are decoded."""
    grace_seconds: Annotated[float, env("HANSA_SERVER_GRACE_SECONDS")] = 10.0
    """Seconds that open requests are given after SIGTERM."""
    address_bytes: Annotated[int, env("HANSA_SERVER_ADDRESS_BYTES")] = 8_192
    """Longest address of a request, path and query, in bytes; longer ones are answered with 414."""
    header_bytes: Annotated[int, env("HANSA_SERVER_HEADER_BYTES")] = 32_768
    """All headers of a request together, in bytes, names and values; what has more is answered with 431."""
    header_count: Annotated[int, env("HANSA_SERVER_HEADER_COUNT")] = 100
    """Most headers of a request; what has more is answered with 431."""
    header_seconds: Annotated[float, env("HANSA_SERVER_HEADER_SECONDS")] = 10.0
    """Seconds in which a request's headers must have come whole, and a TLS handshake must have ended; then the connection is closed."""
    body_seconds: Annotated[float, env("HANSA_SERVER_BODY_SECONDS")] = 30.0
    """Seconds that a request's body may take, and one more for each 16 KiB of it that have come; then the connection is closed."""
    send_seconds: Annotated[float, env("HANSA_SERVER_SEND_SECONDS")] = 60.0
    """Seconds that an answer may stand still because its reader takes nothing; then the connection is closed."""
    keep_alive_seconds: Annotated[float, env("HANSA_SERVER_KEEP_ALIVE_SECONDS")] = 15.0
    """Seconds that a connection is kept open between requests. Behind a load balancer: longer than that keeps its own, or it meets
    connections that were just closed."""
    connections: Annotated[int, env("HANSA_SERVER_CONNECTIONS")] = 8_192
    """Most connections at once; further ones are answered with 503, whatever they ask."""
    connections_per_address: Annotated[int, env("HANSA_SERVER_CONNECTIONS_PER_ADDRESS")] = 2_048
    """Most connections at once of one address (of IPv6: one /64 network); further ones are answered with 429. 0: as many as there are,
    for a server that is reached through a load balancer only, where all connections come from one address."""
    streams_per_principal: Annotated[int, env("HANSA_SERVER_STREAMS_PER_PRINCIPAL")] = 1_024
    """Most event streams that one key may read at once from one control plane; further ones are refused with 429."""
    streams_per_tenant: Annotated[int, env("HANSA_SERVER_STREAMS_PER_TENANT")] = 2_048
    """Most event streams that a whole tenant may read at once from one control plane; further ones are refused with 429."""
    proxies: Annotated[str, env("HANSA_SERVER_PROXIES")] = ""
    """Comma-separated addresses or networks of reverse proxies in front, whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed;
    empty: nobody's, for anyone may write them. Connections are counted by the address that they really come from."""
    cors_origins: Annotated[str, env("HANSA_SERVER_CORS_ORIGINS")] = ""
    """Comma-separated origins, as in `https://console.example.org`, whose pages may read answers in a browser; empty: none. There is no
    `*`, and no origin is ever allowed to send cookies: there are none."""


class TlsSettings(msgspec.Struct, frozen=True):
    """TLS of the control plane, 1.2 or newer. Files are read again when they change, or at once on SIGHUP: new connections get the new
    certificate, open ones go on, and of a pair that can't be used the one before is kept."""

    cert_file: Annotated[str, env("HANSA_SERVER_TLS_CERT_FILE")] = ""
    """PEM file with the server's certificate and those that lead to its authority; empty: plain HTTP."""
    key_file: Annotated[str, env("HANSA_SERVER_TLS_KEY_FILE")] = ""
    """PEM file with the certificate's private key, without a passphrase; empty: it stands in the certificate's file."""
    client_ca_file: Annotated[str, env("HANSA_SERVER_TLS_CLIENT_CA_FILE")] = ""
    """PEM file with authorities; only clients that show a certificate of one of them are let in, to probes and pages too; empty: none is
    asked for. An API key is needed nevertheless."""
    look_seconds: Annotated[float, env("HANSA_SERVER_TLS_LOOK_SECONDS")] = 5.0
    """Pause between looks whether one of these files has changed."""


class DatabaseSettings(msgspec.Struct, frozen=True):
    """PostgreSQL, three ways in: the admin migrates, the app serves under row-level security, the system claims."""

    url: Annotated[str, env("HANSA_DATABASE_URL")] = ""
    """Admin URL, used only by `hansa migrate` (and `hansa up`): may create roles and schemas. Never used to serve."""
    app_url: Annotated[str, env("HANSA_DATABASE_APP_URL")] = ""
    """URL of the role hansa_app (NOBYPASSRLS), for everything done on behalf of a tenant."""
    system_url: Annotated[str, env("HANSA_DATABASE_SYSTEM_URL")] = ""
    """URL of the role hansa_system, whose own narrow policies let it claim, renew, sweep and look up keys."""
    pool_size: Annotated[int, env("HANSA_DATABASE_POOL_SIZE")] = 8
    """Connections of the app pool of one process; the system pool has 2. 8 saturates two cores."""
    timeout_seconds: Annotated[float, env("HANSA_DATABASE_TIMEOUT_SECONDS")] = 10.0
    """Longest wait for a connection or an answer before the request is refused as unavailable."""
    dedicated_file: Annotated[str, env("HANSA_DATABASE_DEDICATED_FILE")] = ""
    """TOML file of tenants' own databases, a table a tenant with its three URLs; empty: none. All processes need it, migrate all of it."""


class NatsSettings(msgspec.Struct, frozen=True):
    """NATS, which carries doorbells and live events and is never the only copy of anything."""

    url: Annotated[str, env("HANSA_NATS_URL")] = "nats://127.0.0.1:4222"
    """Address of the region's NATS."""
    token_file: Annotated[str, env("HANSA_NATS_TOKEN_FILE")] = ""
    """File with the token to log in with; empty: no token. A server with a token has one account for all: none of a tenant's own."""
    creds_file: Annotated[str, env("HANSA_NATS_CREDS_FILE")] = ""
    """File with the credentials (user JWT and seed) of Hansa's own account, on a server in operator mode; empty: none."""
    operator_file: Annotated[str, env("HANSA_NATS_OPERATOR_FILE")] = ""
    """File with the operator's seed, for the control plane alone: with it tenants get accounts. Empty, the default: none are made.
    `hansa up` sets it; `hansa nats keys` makes it for a server of your own."""
    public_url: Annotated[str, env("HANSA_NATS_PUBLIC_URL")] = ""
    """Address at which tenants' own programs reach NATS, as their credentials tell it; empty: that of `HANSA_NATS_URL`."""
    ca_file: Annotated[str, env("HANSA_NATS_CA_FILE")] = ""
    """PEM file with the authorities that the server's certificate must come from, for `tls://` addresses; empty: those of the system."""
    cert_file: Annotated[str, env("HANSA_NATS_CERT_FILE")] = ""
    """PEM file with the certificate that is shown to a server that asks for one; empty: none."""
    key_file: Annotated[str, env("HANSA_NATS_KEY_FILE")] = ""
    """PEM file with that certificate's private key; empty: it stands in the certificate's file."""
    replicas: Annotated[int, env("HANSA_NATS_REPLICAS")] = 1
    """Servers that keep each queue; 3 in a cluster of three or more, so that one of them may be away."""


class KeySettings(msgspec.Struct, frozen=True):
    """API keys."""

    pepper_file: Annotated[str, env("HANSA_KEY_PEPPER_FILE")] = ""
    """File with the pepper mixed into every key's hash, so that a copy of the database alone verifies nothing."""
    file: Annotated[str, env("HANSA_API_KEY_FILE")] = ""
    """Where `hansa migrate` writes the first key (mode 0600) or finds one of `hansa keys make`, and where the CLI reads it; empty: none."""


class ClientSettings(msgspec.Struct, frozen=True):
    """The command line as a client; read by it alone. What it is told by options wins."""

    url: Annotated[str, env("HANSA_URL")] = ""
    """Address of the API; empty: that of the data folder."""
    api_key: Annotated[str, env("HANSA_API_KEY")] = ""
    """The API key itself; empty: the key in the file that `HANSA_API_KEY_FILE` names, or that of the data folder."""
    tenant: Annotated[str, env("HANSA_TENANT")] = ""
    """Tenant to act in, for keys that may act in any; empty: that of the key."""
    logins_file: Annotated[str, env("HANSA_LOGINS_FILE")] = ""
    """Where `hansa login` keeps its tokens, mode 0600; empty: hansa/logins.json in the person's folder for settings (~/.config)."""
    login_issuer: Annotated[str, env("HANSA_LOGIN_ISSUER")] = ""
    """OpenID provider of `hansa login`, as its tokens say it (`iss`)."""
    login_client_id: Annotated[str, env("HANSA_LOGIN_CLIENT_ID")] = ""
    """What the provider knows this program as: a public client that may use the device flow."""
    login_audience: Annotated[str, env("HANSA_LOGIN_AUDIENCE")] = ""
    """Audience that `hansa login` asks for; empty: none, for a provider that goes by the client."""
    on_behalf_of: Annotated[str, env("HANSA_ON_BEHALF_OF")] = ""
    """End user to name as the one acted for, which needs the permission users:act; empty: nobody."""
    ca_file: Annotated[str, env("HANSA_CA_FILE")] = ""
    """PEM file with the authorities that the certificate of an https address must come from; empty: those of the system."""
    cert_file: Annotated[str, env("HANSA_CLIENT_CERT_FILE")] = ""
    """PEM file with the certificate that is shown to a server that asks for one (`HANSA_SERVER_TLS_CLIENT_CA_FILE`); empty: none."""
    key_file: Annotated[str, env("HANSA_CLIENT_KEY_FILE")] = ""
    """PEM file with that certificate's private key; empty: it stands in the certificate's file."""


class WorkerSettings(msgspec.Struct, frozen=True):
    """What runs the agents."""

    concurrency: Annotated[int, env("HANSA_WORKER_CONCURRENCY")] = 16
    """Runs at once in one worker process; most of their time is waiting for a model."""
    tenant: Annotated[str, env("HANSA_WORKER_TENANT")] = ""
    """Tenant with `isolation.workers: Dedicated` whose runs this worker takes, and no others; empty: those of all that share workers."""
    probe_seconds: Annotated[float, env("HANSA_ISOLATION_PROBE_SECONDS")] = 30.0
    """Pause between probes of the walls between tenants, by one worker of a region at a time; 30 s, so that a hole is known within a
    minute. 0: none, and no tenant is Ready."""
    pools: Annotated[str, env("HANSA_WORKER_POOLS")] = "default"
    """Comma-separated pools whose runs this worker takes, the first named first; an agent chooses one by spec.placement.pool."""
    lease_seconds: Annotated[float, env("HANSA_WORKER_LEASE_SECONDS")] = 30.0
    """How long a run belongs to a worker that has fallen silent. Longer: later take-over; shorter: more renewals."""
    renew_seconds: Annotated[float, env("HANSA_WORKER_RENEW_SECONDS")] = 10.0
    """Pause between renewals of all leases; a third of the lease, so that two may fail."""
    poll_seconds: Annotated[float, env("HANSA_WORKER_POLL_SECONDS")] = 1.0
    """Pause between looks for work when no doorbell rings."""
    grace_seconds: Annotated[float, env("HANSA_WORKER_GRACE_SECONDS")] = 10.0
    """Seconds that runs are given to finish after SIGTERM; then they are handed over to the next worker."""


class MessageSettings(msgspec.Struct, frozen=True):
    """Messages on their way from an outbox to a receiver."""

    concurrency: Annotated[int, env("HANSA_MESSAGES_CONCURRENCY")] = 4
    """Messages received at once by one worker process; each holds a database connection while it is handled."""
    window: Annotated[int, env("HANSA_MESSAGES_WINDOW")] = 1000
    """Messages of a region that are in NATS at once; the rest waits in PostgreSQL, so that a backlog does not fill NATS."""
    resend_seconds: Annotated[float, env("HANSA_MESSAGES_RESEND_SECONDS")] = 5.0
    """How long a message that NATS has taken may stay undelivered before it is sent again, longer each time. Also how long a receiver
    may be silent before the message is given to another."""
    attempts: Annotated[int, env("HANSA_MESSAGES_ATTEMPTS")] = 5
    """Failures after which a message is put aside as a dead letter, so that those behind it go on."""
    backoff_seconds: Annotated[float, env("HANSA_MESSAGES_BACKOFF_SECONDS")] = 0.5
    """Pause after the first failure; doubled after each further one."""
    poll_seconds: Annotated[float, env("HANSA_MESSAGES_POLL_SECONDS")] = 1.0
    """Pause between looks into the outbox when no doorbell rings."""
    inbox_days: Annotated[float, env("HANSA_MESSAGES_INBOX_DAYS")] = 7.0
    """How long it is remembered that a message was received, so that the same id is received once. At least 1 day; far longer than
    anything is sent again."""


class ArtifactSettings(msgspec.Struct, frozen=True):
    """Where large values lie. Credentials of a bucket are no settings of Hansa: they are read from the environment in AWS's way
    (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the machine's own role)."""

    url: Annotated[str, env("HANSA_ARTIFACTS_URL")] = ""
    """A folder (`/srv/artifacts`) or a bucket (`s3://bucket/prefix`) of any S3 API; empty: the folder `artifacts` of the data folder.
    Control plane and workers must reach the same one, so with several machines use a bucket or a shared folder."""
    endpoint: Annotated[str, env("HANSA_ARTIFACTS_ENDPOINT")] = ""
    """URL of the S3 API, such as `https://minio.example.org`; empty: that of AWS for the region."""
    region: Annotated[str, env("HANSA_ARTIFACTS_REGION")] = "us-east-1"
    """Region of the bucket, as its S3 API calls it; most that are not AWS take the default."""
    timeout_seconds: Annotated[float, env("HANSA_ARTIFACTS_TIMEOUT_SECONDS")] = 10.0
    """Longest wait for the S3 API, retries included, before what needs it is put off as unavailable."""
    from_bytes: Annotated[int, env("HANSA_ARTIFACTS_FROM_BYTES")] = 262_144
    """Values larger than this many bytes go to the artifact store, smaller ones to PostgreSQL, where a backup has them at once;
    256 KiB by default: above it a row costs PostgreSQL more than a request costs the store."""


class RetentionSettings(msgspec.Struct, frozen=True):
    """How long the log is kept."""

    days: Annotated[int, env("HANSA_RETENTION_DAYS")] = 0
    """Sessions without any activity for this many days are removed with all that only they refer to; 0, the default: nothing is ever
    removed, for deleting what someone still needs can't be undone, and keeping it can. Never removed: a session with a run that has
    not ended."""


class AuditSettings(msgspec.Struct, frozen=True):
    """The audit trail: its checkpoints outside, and how long it is kept."""

    key_file: Annotated[str, env("HANSA_AUDIT_KEY_FILE")] = ""
    """File with the secret that workers sign checkpoints with, at least 16 bytes; empty: none are made, and none of the trail is ever
    removed. `hansa up` makes one. `hansa audit public-key` shows what others need to verify them."""
    public_keys: Annotated[str, env("HANSA_AUDIT_PUBLIC_KEYS")] = ""
    """Comma-separated public keys, 64 hex digits each, whose checkpoints are believed beside those of the key file: those of earlier keys,
    and on control planes that have no key file, that of the workers."""
    url: Annotated[str, env("HANSA_AUDIT_URL")] = ""
    """Where checkpoints lie: a folder or `s3://bucket/prefix`, by the HANSA_ARTIFACTS_* of its kind; empty: the folder `audit` of the data
    folder. They are worth most where who rules the database does not rule: another machine, or a bucket that lets nothing be rewritten."""
    seal_seconds: Annotated[float, env("HANSA_AUDIT_SEAL_SECONDS")] = 600.0
    """A row has a checkpoint after so many seconds, 10 minutes by default, or sooner when 1,000 rows wait for one."""
    retention_days: Annotated[int, env("HANSA_AUDIT_RETENTION_DAYS")] = 0
    """Weeks of the trail that are wholly older than this many days are removed, when checkpoints cover them; what is left can still be
    verified. 0, the default: none is ever removed."""


class PluginSettings(msgspec.Struct, frozen=True):
    """Which plugins are loaded."""

    names: Annotated[str, env("HANSA_PLUGINS")] = ""
    """Comma-separated plugin names to load and no others; empty: all that are installed."""
    trace: Annotated[bool, env("HANSA_TRACE_PLUGINS")] = False
    """Log every hook call with its plugin, arguments and result."""


class CageSettings(msgspec.Struct, frozen=True):
    """Programs that tools run in a cage. Bounds hold for one call and all its processes together; an agent may set narrower ones."""

    require: Annotated[str, env("HANSA_CAGE_REQUIRE")] = "files,network,processes"
    """Comma-separated guarantees without which nothing is run, of `files`, `network`, `processes`, `syscalls`; see `hansa doctor`."""
    seconds: Annotated[float, env("HANSA_CAGE_SECONDS")] = 30.0
    """After so many seconds all of it is killed."""
    memory_mebibytes: Annotated[int, env("HANSA_CAGE_MEMORY_MEBIBYTES")] = 512
    """Most memory, all processes together; looked at 20 times a second. One process may reserve twice as much address space."""
    processes: Annotated[int, env("HANSA_CAGE_PROCESSES")] = 32
    """Most processes and threads at once."""
    file_mebibytes: Annotated[int, env("HANSA_CAGE_FILE_MEBIBYTES")] = 64
    """Largest file it may write."""
    disk_mebibytes: Annotated[int, env("HANSA_CAGE_DISK_MEBIBYTES")] = 256
    """Most that the workspace may hold, looked at four times a second; its `/tmp`, which is memory, may hold as much again."""
    output_kibibytes: Annotated[int, env("HANSA_CAGE_OUTPUT_KIBIBYTES")] = 128
    """Most that it may write to its output and error output; then it is killed."""
    at_once: Annotated[int, env("HANSA_CAGE_AT_ONCE")] = 8
    """Cages of one worker at once; further calls wait. With `memory_mebibytes` it bounds what they take of a machine."""


class EgressSettings(msgspec.Struct, frozen=True):
    """The door out."""

    allow: Annotated[str, env("HANSA_EGRESS_ALLOW")] = ""
    """Comma-separated hosts, host:port or CIDRs that model providers and tool servers may be at although they are private, e.g.
    `127.0.0.1:11434`. Tools that a model directs, such as `http_get`, can't reach them."""
    tools_allow: Annotated[str, env("HANSA_EGRESS_TOOLS_ALLOW")] = ""
    """The same for tools that a model directs: what is listed here, a model can read."""
    issuers_allow: Annotated[str, env("HANSA_EGRESS_ISSUERS_ALLOW")] = ""
    """The same for identity providers that Tenant objects name as issuers; by default their keys come from the public Internet alone."""
    allow_http: Annotated[bool, env("HANSA_EGRESS_ALLOW_HTTP")] = True
    """Whether plain http is let out to public hosts. Tools read the public web, much of which still is http."""


class CredentialSettings(msgspec.Struct, frozen=True):
    """The secrets that objects may have sent."""

    allow: Annotated[str, env("HANSA_CREDENTIALS_ALLOW")] = "*_API_KEY,*_MCP_TOKEN"
    """Comma-separated names of environment variables that `credentials.env` of a ModelProvider or ToolServer may name; `*` stands for
    any text. Whoever may apply objects chooses where such a value is sent: where that is not you, list names, e.g.
    `ANTHROPIC_API_KEY`. Variables named `HANSA_*` are never admitted."""


class SecretSettings(msgspec.Struct, frozen=True):
    """Where the keys of tenants' secrets are. The plugin that keeps them reads further variables `HANSA_SECRETS_*`, see docs/secrets.md."""

    kek: Annotated[str, env("HANSA_SECRETS_KEK")] = "file"
    """Name of the key provider that wraps new data keys: `file`, `vault`, or of a plugin. Others still unwrap what they wrapped."""
    allow: Annotated[str, env("HANSA_SECRETS_ALLOW")] = ""
    """Comma-separated hosts, host:port or CIDRs that key providers and secret sources may be at although private: `vault.internal:8200`."""
    ca_file: Annotated[str, env("HANSA_SECRETS_CA_FILE")] = ""
    """PEM file of the certificate authority of key providers and secret sources, if it is a private one; empty: the system's trust."""


class LogSettings(msgspec.Struct, frozen=True):
    """Logs, on stderr."""

    format: Annotated[str, env("HANSA_LOG_FORMAT")] = "json"
    """`json`, one object a line for machines, or `text` for people."""
    level: Annotated[str, env("HANSA_LOG_LEVEL")] = "info"
    """debug, info, warning or error."""


class PlaceSettings(msgspec.Struct, frozen=True):
    """Where this process stands."""

    region: Annotated[str, env("HANSA_REGION")] = "local"
    """Name of the region that this process serves."""
    data_dir: Annotated[str, env("HANSA_DATA_DIR")] = ".hansa"
    """Folder for workspaces and caches of this machine; nothing in it is the only copy of a run."""


class Settings(msgspec.Struct, frozen=True):
    """All groups. `tools`: the operator's HANSA_TOOL_* variables, prefix cut, lower case; `secret_options`: those named HANSA_SECRETS_*."""

    server: ServerSettings = ServerSettings()
    tls: TlsSettings = TlsSettings()
    database: DatabaseSettings = DatabaseSettings()
    nats: NatsSettings = NatsSettings()
    key: KeySettings = KeySettings()
    worker: WorkerSettings = WorkerSettings()
    messages: MessageSettings = MessageSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    retention: RetentionSettings = RetentionSettings()
    audit: AuditSettings = AuditSettings()
    plugins: PluginSettings = PluginSettings()
    cage: CageSettings = CageSettings()
    egress: EgressSettings = EgressSettings()
    credentials: CredentialSettings = CredentialSettings()
    secrets: SecretSettings = SecretSettings()
    log: LogSettings = LogSettings()
    place: PlaceSettings = PlaceSettings()
    tools: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    secret_options: dict[str, str] = msgspec.field(default_factory=dict[str, str])


def load(environ: Mapping[str, str]) -> Settings:
    """Read every setting. Raises `Misconfigured` naming each variable that can't be read and what was expected."""
    errors: list[FieldError] = []
    groups: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            groups[field.name] = group(field.type, environ, errors)
    if errors:
        raise Misconfigured("; ".join(f"{e.path}: {e.message}" for e in errors), errors=tuple(errors))
    return Settings(**groups, tools=_prefixed(environ, "HANSA_TOOL_"), secret_options=_prefixed(environ, "HANSA_SECRETS_"))


def _prefixed(environ: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Variables of a prefix, which is cut, in lower case."""
    return {name.removeprefix(prefix).lower(): value for name, value in environ.items() if name.startswith(prefix)}


def client(environ: Mapping[str, str]) -> ClientSettings:
    """What the command line reads of the environment as a client."""
    return msgspec.convert(group(ClientSettings, environ, []), ClientSettings, from_attributes=True)


def data_dir(settings: Settings) -> Path:
    """The data folder as a path."""
    return Path(settings.place.data_dir)


def group(struct: type[msgspec.Struct], environ: Mapping[str, str], errors: list[FieldError]) -> msgspec.Struct:
    """Read one group; what can't be read is told to `errors`, and stays at its default."""
    values: dict[str, Any] = {}
    for name, annotation in get_type_hints(struct, include_extras=True).items():
        kind, meta = get_args(annotation)
        variable = str(meta.extra["env"])
        text = environ.get(variable, "")
        if not text:
            continue
        try:
            values[name] = msgspec.convert(text, kind, strict=False)
        except msgspec.ValidationError as error:
            errors.append(FieldError(variable, "type", f"{error}, got {text[:40]!r}"))
    return struct(**values)
