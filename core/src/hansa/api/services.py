"""What the handlers of one process use."""

import asyncio
from typing import Any

import msgspec
from litestar import Request

from hansa.agents.service import Agents
from hansa.api.streams import Streams
from hansa.apply.rollout.service import Rollouts
from hansa.apply.service import Objects
from hansa.apply.sources import Sources
from hansa.audit.door import Door
from hansa.audit.reading import Trails
from hansa.auth.accounts import ServiceAccounts
from hansa.auth.api_keys import ApiKeys
from hansa.auth.issuers import IssuerKeys
from hansa.auth.service import Authenticator
from hansa.llm.service import Gateway
from hansa.messages.service import DeadLetters
from hansa.plugins.model import Plugins
from hansa.runs.approvals import Approvals
from hansa.runs.equipment import Equipment
from hansa.runs.leaving.service import Bundles
from hansa.runs.log.service import Archives
from hansa.runs.service import Runs
from hansa.settings import Settings
from hansa.tenants.budgets import Budgets
from hansa.tenants.deletion import Deletions
from hansa.tenants.messaging.service import Messaging
from hansa.tenants.rates import Rates
from hansa.tenants.secrets.rotation import Rotation
from hansa.tenants.secrets.service import TenantSecrets
from hansa.tenants.service import Tenants

AnyRequest = Request[Any, Any, Any]
IN_THE_LOG = "what starts a run or is said to one stands in its session's log, which nobody rewrites; auditing it too would slow every run"
"""Why such a route has no row in the audit trail."""

STANDING = "only what stands in namespaces in which the caller has the permission; of all else what is said of a missing thing"
UNPLACED = "nothing of it stands in a namespace"
"""Why a route lets in those who have its permission in namespaces only (`within`): what it shows them, and may do for them."""


class Services(msgspec.Struct, frozen=True):
    """Made by the composition root."""

    settings: Settings
    authenticator: Authenticator
    issuer_keys: IssuerKeys
    api_keys: ApiKeys
    accounts: ServiceAccounts
    tenants: Tenants
    deletions: Deletions
    bundles: Bundles
    rates: Rates
    door: Door
    trails: Trails
    budgets: Budgets
    secrets: TenantSecrets
    rotation: Rotation
    messaging: Messaging
    equipment: Equipment
    plugins: Plugins
    gateway: Gateway
    agents: Agents
    rollouts: Rollouts
    objects: Objects
    sources: Sources
    runs: Runs
    approvals: Approvals
    dead_letters: DeadLetters
    archives: Archives
    streams: Streams
    cursor_key: bytes
    stopping: asyncio.Event


def services(request: AnyRequest) -> Services:
    """The process's services."""
    found: Services = request.app.state.services
    return found
