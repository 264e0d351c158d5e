"""`hansa nats`: the tenant's account on NATS, credentials for its own programs, and the keys of a NATS server of one's own."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter, validators

from hansa.bus.operator import write_server_files
from hansa.cli.client import Json, open_api
from hansa.cli.connection import Connection
from hansa.cli.output import OutputFlag, say, show_value, write

nats = App(name="nats")


@nats.default
@nats.command(name="account")
def show_account(*, connection: Connection | None = None, output: OutputFlag = "table") -> None:
    """Show the tenant's account on NATS: whether it is ready, why not, and its bounds."""
    with open_api(connection or Connection()) as api:
        found = api.get("/v1/nats-account")
    if output != "table":
        show_value(found, output)
        return
    write(f"account {found['account'] or '-'} at {found['url']}: {found['message']} ({found['reason']})\n")
    write(f"  {found['connections']} connections, {found['subscriptions']} subscriptions each, {found['payload_bytes']} bytes a message\n")


@nats.command(name="creds")
def make_credentials(
    name: str,
    *,
    minutes: Annotated[float, Parameter(help="How long they are good.", validator=validators.Number(gt=0, lte=60))] = 60.0,
    connection: Connection | None = None,
    output: OutputFlag = "table",
) -> None:
    """Make credentials for a program of the tenant, which may do no more than you. Their text is the only thing on stdout.

    Parameters
    ----------
    name
        What the credentials are for.
    """
    body: Json = {"name": name, "ttl_seconds": max(1, int(minutes * 60))}
    with open_api(connection or Connection()) as api:
        made = api.post("/v1/nats-credentials", body)
    if output != "table":
        show_value(made, output)
        return
    write(made["creds"])
    say(f"credentials of user {made['user']} for {made['url']}, good until {made['expires_at']}; they are not shown again")


@nats.command(name="revoke")
def revoke_credentials(user: str | None = None, /, *, connection: Connection | None = None) -> None:
    """Revoke all credentials of the tenant at once, or those of one user: programs are cut off, and come back with new ones only.

    Parameters
    ----------
    user
        Public key that was told when the credentials were made; left out: all credentials of the tenant.
    """
    with open_api(connection or Connection()) as api:
        api.delete("/v1/nats-credentials", {} if user is None else {"user": user})
    say("all NATS credentials of the tenant are revoked" if user is None else f"the NATS credentials of user {user} are revoked")


@nats.command(name="keys")
def make_keys(
    folder: Path,
    *,
    accounts: Annotated[str, Parameter(help="Folder where the server keeps tenants' accounts, as the server sees it.")] = "./accounts",
) -> None:
    """Make the keys of a NATS server of your own, so that tenants get accounts on it, and the part of its configuration that they need.

    Parameters
    ----------
    folder
        Where to write the files; an operator's seed that is there already is kept.
    """
    files = write_server_files(folder, accounts)
    write(f"{files.configuration}: include it in the server's configuration, on each server of a cluster\n")
    write(f"{files.credentials}: HANSA_NATS_CREDS_FILE of control planes and workers\n")
    write(f"{files.operator}: HANSA_NATS_OPERATOR_FILE of control planes; whoever has it is every account\n")
