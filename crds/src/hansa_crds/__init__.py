"""Hansa's objects: types, validation and the registry of kinds. Depends on msgspec only."""

from hansa_crds.changes import changes
from hansa_crds.identity import Issuer, RoleBinding, TenantIdentity
from hansa_crds.kinds import KINDS, Column, Kind, kind_of
from hansa_crds.model import (
    Agent,
    AgentLimits,
    AgentModel,
    AgentRuntime,
    AgentSpec,
    AgentTools,
    Credentials,
    Example,
    HansaObject,
    ModelChoice,
    ModelParams,
    ModelPrices,
    ModelProvider,
    ModelProviderSpec,
    ObjectMeta,
    ProviderModel,
    Region,
    RegionSpec,
    SecretRef,
    Tenant,
    ToolServer,
    ToolServerSpec,
)
from hansa_crds.parts import API_VERSION, GROUP, VERSION, Effect
from hansa_crds.policies import ArgumentRule, CageBounds, TenantAllowed
from hansa_crds.problem import Code, Keys, Problem
from hansa_crds.quotas import TenantBudget, TenantQuotas
from hansa_crds.tenant import TenantSpec
from hansa_crds.validation import check, problems

__all__ = [
    "API_VERSION",
    "GROUP",
    "KINDS",
    "VERSION",
    "Agent",
    "AgentLimits",
    "AgentModel",
    "AgentRuntime",
    "AgentSpec",
    "AgentTools",
    "ArgumentRule",
    "CageBounds",
    "Code",
    "Column",
    "Credentials",
    "Effect",
    "Example",
    "HansaObject",
    "Issuer",
    "Keys",
    "Kind",
    "ModelChoice",
    "ModelParams",
    "ModelPrices",
    "ModelProvider",
    "ModelProviderSpec",
    "ObjectMeta",
    "Problem",
    "ProviderModel",
    "Region",
    "RegionSpec",
    "RoleBinding",
    "SecretRef",
    "Tenant",
    "TenantAllowed",
    "TenantBudget",
    "TenantIdentity",
    "TenantQuotas",
    "TenantSpec",
    "ToolServer",
    "ToolServerSpec",
    "changes",
    "check",
    "kind_of",
    "problems",
]
