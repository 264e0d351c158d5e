"""`hansa login` and `hansa logout`: come in with an account at an OpenID provider instead of a key.

The person approves in a browser, on whatever machine; here a code is shown and waited for.
"""

import os
import sys
import webbrowser
from typing import Annotated

from cyclopts import Parameter

from hansa import settings
from hansa.cli import logins, provider
from hansa.cli.client import open_api
from hansa.cli.connection import Connection, find, server
from hansa.cli.output import say, write
from hansa.cli.usage import UsageError
from hansa.errors import Forbidden, HansaError, Unauthenticated

SCOPE = "openid offline_access"


def login(
    *,
    issuer: Annotated[str, Parameter(help="Address of the OpenID provider (HANSA_LOGIN_ISSUER).")] = "",
    client_id: Annotated[str, Parameter(help="What the provider knows this program as (HANSA_LOGIN_CLIENT_ID).")] = "",
    audience: Annotated[str, Parameter(help="Audience to ask for, where the provider wants one (HANSA_LOGIN_AUDIENCE).")] = "",
    scope: Annotated[str, Parameter(help="Scopes to ask for.")] = SCOPE,
    browser: Annotated[bool, Parameter(help="Open a browser, where there is one.")] = True,
    connection: Connection | None = None,
) -> None:
    """Log in at a Hansa server with an account at an OpenID provider. Every command uses it from then on, and renews it."""
    told, given = settings.client(os.environ), connection or Connection()
    issuer, client_id = issuer or told.login_issuer, client_id or told.login_client_id
    if not issuer or not client_id:
        hint = "So do HANSA_LOGIN_ISSUER and HANSA_LOGIN_CLIENT_ID."
        raise UsageError("which provider, and as which client? --issuer and --client-id say it", hint=hint)
    url = server(given).url
    at = provider.discover(issuer)
    device = provider.begin(at, client_id, scope=scope, audience=audience or told.login_audience)
    say(f"Open {device.verification_uri} and enter the code {device.user_code}")
    page = device.verification_uri_complete or device.verification_uri
    if browser and (sys.stderr.isatty() or os.environ.get("BROWSER")):
        webbrowser.open(page)
    made = logins.made(at, client_id, provider.wait(at, client_id, device))
    logins.keep(logins.place(), url, made)
    target = find(Connection(url=url, tenant=given.tenant))
    if target.key != made.access_token:
        say(f"logged in at {url}; but commands go on with the key from {target.key_source}, as long as that is there")
        return
    try:
        with open_api(Connection(url=url, tenant=given.tenant)) as api:
            me = api.get("/v1/whoami")
    except Forbidden:
        say(f"logged in at {url}; you have no role there yet")
    except Unauthenticated:
        logins.forget(logins.place(), url)
        raise
    else:
        write(f"logged in at {url} as {me['name']} in tenant {me['tenant']}, roles: {', '.join(me['roles'])}\n")


def logout(*, connection: Connection | None = None) -> None:
    """Forget the log-in at a Hansa server, and tell its provider."""
    url = server(connection or Connection()).url
    found = logins.forget(logins.place(), url)
    if found is None:
        say(f"nobody is logged in at {url}")
        return
    if found.refresh_token and found.revocation_endpoint:
        try:
            provider.revoke(found.revocation_endpoint, found.client_id, found.refresh_token)
        except HansaError as error:
            say(f"the provider could not be told: {error.detail}")
    say(f"logged out of {url}")
