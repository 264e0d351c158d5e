"""The control plane over a process's equipment: every service that the handlers use is made here."""

import asyncio
import hashlib
import os

from litestar import Litestar

from hansa.agents.service import Agents
from hansa.api.app import create_app
from hansa.api.services import Services
from hansa.apply.service import Objects
from hansa.auth import keys
from hansa.auth.accounts import ServiceAccounts
from hansa.auth.api_keys import ApiKeys
from hansa.auth.bearers import Bearers
from hansa.auth.issuers import IssuerKeys, policy
from hansa.auth.service import Authenticator
from hansa.bus.subjects import keys_changed
from hansa.egress.client import open_client
from hansa.egress.policy import entries
from hansa.messages.service import DeadLetters
from hansa.runs.acceptor import Acceptor
from hansa.runs.approvals import Approvals
from hansa.runs.equipment import Equipment
from hansa.runs.log.service import Archives
from hansa.runs.service import Runs
from hansa.secrets.variables import admitted
from hansa.settings import Settings
from hansa.tenants.rates import Rates
from hansa.tenants.service import Tenants


def compose(settings: Settings, equipment: Equipment, acceptor: Acceptor, stopping: asyncio.Event) -> Litestar:
    """The application; `stopping` ends its live streams. Raises `Misconfigured`."""
    pepper = keys.read_pepper(settings.key.pepper_file)
    to_issuers = policy(entries(settings.egress.issuers_allow))
    issuer_keys = IssuerKeys(open_client(to_issuers))
    authenticator = Authenticator(equipment.database, pepper, Bearers(equipment.database, issuer_keys))
    api_keys = ApiKeys(equipment.database, authenticator, pepper=pepper, tell=lambda: equipment.bus.ring(keys_changed(equipment.region)))
    services = Services(
        settings=settings,
        authenticator=authenticator,
        issuer_keys=issuer_keys,
        api_keys=api_keys,
        accounts=ServiceAccounts(equipment.database, changed=api_keys.changed),
        tenants=Tenants(equipment.database),
        rates=Rates(equipment.database),
        equipment=equipment,
        plugins=equipment.plugins,
        gateway=equipment.gateway,
        agents=Agents(equipment.database),
        objects=Objects(
            equipment.database,
            equipment.plugins,
            equipment.tool_servers.discover,
            variables=admitted(os.environ, settings.credentials.allow),
            issuers=to_issuers,
        ),
        approvals=Approvals(equipment.database, equipment.bus, equipment.region, values=equipment.values),
        dead_letters=DeadLetters(equipment.database, equipment.bus, equipment.region),
        runs=Runs(equipment.database, equipment.bus, equipment.region, acceptor, values=equipment.values),
        archives=Archives(equipment.database, equipment.values, equipment.workspaces.parent / "imports"),
        stopping=stopping,
        cursor_key=hashlib.sha256(b"cursor" + pepper).digest(),
    )
    return create_app(services)
