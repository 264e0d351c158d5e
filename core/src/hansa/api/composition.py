"""The control plane over a process's equipment: every service that the handlers use is made here."""

import asyncio
import hashlib
import os

from litestar import Litestar

from hansa.agents.service import Agents
from hansa.api.app import create_app
from hansa.api.services import Services
from hansa.apply.service import Objects
from hansa.audit.checkpoints import open_outside
from hansa.audit.reading import Trails
from hansa.audit.refusals import Refusals
from hansa.audit.signing import read_signer
from hansa.auth import keys
from hansa.auth.api_keys import ApiKeys
from hansa.auth.service import Authenticator
from hansa.bus.subjects import keys_changed
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
    authenticator = Authenticator(equipment.database, pepper)
    services = Services(
        settings=settings,
        authenticator=authenticator,
        api_keys=ApiKeys(equipment.database, authenticator, pepper=pepper, tell=lambda: equipment.bus.ring(keys_changed(equipment.region))),
        tenants=Tenants(equipment.database),
        rates=Rates(equipment.database),
        refusals=Refusals(equipment.database),
        trails=Trails(equipment.database, open_outside(settings), _trusted(settings)),
        equipment=equipment,
        plugins=equipment.plugins,
        gateway=equipment.gateway,
        agents=Agents(equipment.database),
        objects=Objects(
            equipment.database,
            equipment.plugins,
            equipment.tool_servers.discover,
            variables=admitted(os.environ, settings.credentials.allow),
        ),
        approvals=Approvals(equipment.database, equipment.bus, equipment.region, values=equipment.values),
        dead_letters=DeadLetters(equipment.database, equipment.bus, equipment.region),
        runs=Runs(equipment.database, equipment.bus, equipment.region, acceptor, values=equipment.values),
        archives=Archives(equipment.database, equipment.values, equipment.workspaces.parent / "imports"),
        stopping=stopping,
        cursor_key=hashlib.sha256(b"cursor" + pepper).digest(),
    )
    return create_app(services)


def _trusted(settings: Settings) -> frozenset[str]:
    """The public keys whose checkpoints are believed."""
    signer = read_signer(settings.audit.key_file)
    named = {each.strip().lower() for each in settings.audit.public_keys.split(",") if each.strip()}
    return frozenset(named if signer is None else {*named, signer.public_key})
