"""The control plane over a process's equipment: every service that the handlers use is made here."""

import asyncio
import hashlib
import os

from hansa.agents.service import Agents
from hansa.api.app import HANDLERS, create_app
from hansa.api.counting import Counted
from hansa.api.envelope import Envelope, origins
from hansa.api.services import Services
from hansa.api.streams import Streams
from hansa.apply.narrowing import Judges
from hansa.apply.rollout.service import Rollouts
from hansa.apply.service import Objects
from hansa.apply.sources import Sources
from hansa.audit.checkpoints import open_outside
from hansa.audit.door import Door
from hansa.audit.reading import Trails
from hansa.audit.signing import read_signer
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
from hansa.runs.leaving.service import Bundles
from hansa.runs.log.service import Archives
from hansa.runs.service import Runs
from hansa.secrets.variables import admitted
from hansa.settings import Settings
from hansa.tenants.budgets import Budgets
from hansa.tenants.deletion import Deletions
from hansa.tenants.messaging.service import Messaging
from hansa.tenants.probing import stale_seconds
from hansa.tenants.rates import Rates
from hansa.tenants.secrets.rotation import Rotation
from hansa.tenants.service import Tenants
from hansa.tools import expressions


def compose(settings: Settings, equipment: Equipment, acceptor: Acceptor, messaging: Messaging, *, stopping: asyncio.Event) -> Envelope:
    """The application; `stopping` ends its live streams. Raises `Misconfigured`."""
    pepper = keys.read_pepper(settings.key.pepper_file)
    to_issuers = policy(entries(settings.egress.issuers_allow))
    issuer_keys = IssuerKeys(open_client(to_issuers))
    authenticator = Authenticator(equipment.database, pepper, Bearers(equipment.database, issuer_keys))
    api_keys = ApiKeys(equipment.database, authenticator, pepper=pepper, tell=lambda: equipment.bus.ring(keys_changed(equipment.region)))
    tenants = Tenants(equipment.database, equipment.region, stale_seconds=stale_seconds(settings.worker.probe_seconds))
    archives = Archives(equipment.database, equipment.values, equipment.workspaces.parent / "imports")
    judges = Judges(
        flaw=expressions.flaw,
        answer_flaw=expressions.answer_flaw,
        issuers=to_issuers,
        variables=admitted(os.environ, settings.credentials.allow),
    )
    rollouts = Rollouts(equipment.database, equipment.plugins, judges)
    deletions = Deletions(equipment.database, tenants, messaging, tell=api_keys.changed)
    objects = Objects(
        equipment.database,
        equipment.plugins,
        equipment.tool_servers.discover,
        judges=judges,
        tenants=tenants,
        deletions=deletions,
    )
    services = Services(
        settings=settings,
        authenticator=authenticator,
        issuer_keys=issuer_keys,
        api_keys=api_keys,
        accounts=ServiceAccounts(equipment.database, changed=api_keys.changed),
        tenants=tenants,
        deletions=deletions,
        bundles=Bundles(equipment, archives, objects),
        rates=Rates(equipment.database),
        door=Door(equipment.database),
        trails=Trails(equipment.database, open_outside(settings), _trusted(settings)),
        budgets=Budgets(equipment.database),
        secrets=equipment.secrets,
        rotation=Rotation(equipment.database, equipment.secrets.keys, equipment.secrets.keyring),
        messaging=messaging,
        equipment=equipment,
        plugins=equipment.plugins,
        gateway=equipment.gateway,
        agents=Agents(equipment.database, rollouts),
        rollouts=rollouts,
        objects=objects,
        sources=Sources(equipment.database),
        approvals=Approvals(equipment.database, equipment.bus, equipment.region, values=equipment.values),
        dead_letters=DeadLetters(equipment.database, equipment.bus, equipment.region),
        runs=Runs(equipment.database, equipment.bus, equipment.region, acceptor, values=equipment.values),
        archives=archives,
        streams=Streams(settings.server),
        stopping=stopping,
        cursor_key=hashlib.sha256(b"cursor" + pepper).digest(),
    )
    routes = frozenset(path.replace(":str}", "}") for handler in HANDLERS for path in handler.paths)
    app = Counted(create_app(services), equipment.metrics, routes)
    return Envelope(app, origins(settings.server.cors_origins))


def _trusted(settings: Settings) -> frozenset[str]:
    """The public keys whose checkpoints are believed."""
    signer = read_signer(settings.audit.key_file)
    named = {each.strip().lower() for each in settings.audit.public_keys.split(",") if each.strip()}
    return frozenset(named if signer is None else {*named, signer.public_key})
