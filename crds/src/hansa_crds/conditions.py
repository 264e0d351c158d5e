"""Every condition that the platform reports, by kind: what it is about, and each reason that it can have. The reference pages are made
of this, and nothing else can be said.

`CONDITIONS` are those that a kind has of its own; what `Ready`, `Reconciling` and `Stalled` of any object in Kubernetes can say besides
is `REPORTED`. Literals only: `.ci/reference.py` reads them without running anything.
"""

from collections.abc import Mapping
from types import MappingProxyType

READY = "The platform has the object as it is written, and it can be used."
RECONCILING = "Only while it is true: the platform is at work on it, or waits for something, and goes on by itself."
STALLED = "Only while it is true: it goes on when the object is changed, or a person helps."

CONDITIONS: Mapping[str, Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "Agent": {
            "Accepted": {
                "": "The object is kept. One that is refused when applied is not: whoever applies it is told why, and what was kept stays.",
                "Accepted": "It is.",
                "NotAllowed": "Its tenant's lists (`allowed`) no longer let it use something that it names; runs that need that fail.",
            },
            "ResolvedRefs": {
                "": "What the object names is there: model, runtime, tools, agents that it calls.",
                "Resolved": "All of it.",
                "NotResolved": "Something is not, or is not any more; the message names it. What serves goes on with what is left.",
            },
            "Compatible": {
                "": "This version, with the plugins that are loaded, can do all that the object says.",
                "Supported": "It can.",
                "NotSupported": "A rule of the object fits no tool that it has; the message names it.",
                "NotUnderstood": "The object was kept by another version, and has fields that this one does not know.",
            },
            "Ready": {
                "": "The revision that the object says serves, and all of the above is so.",
                "Serving": "It does.",
                "Suspended": "`spec.suspend` is set: no run starts, and those under way are held.",
                "Checking": "The revision is being checked (`spec.rollout`) by the run that the message names; the last good one serves.",
                "Refused": "The revision did not pass its check; the message says why. The last good one serves.",
                "NotReady": "Another condition is not so; the message names it.",
            },
        },
        "Tenant": {
            "DatabaseReady": {
                "": "The tenant has its rows in a database.",
                "Provisioned": "They are in the shared database, behind forced row-level security.",
            },
            "MessagingReady": {
                "": "The tenant has its account on NATS. Only where control planes make accounts (`HANSA_NATS_OPERATOR_FILE`).",
                "AccountReady": "NATS knows the account and bounds it.",
                "AccountNotMade": "NATS has not been told of it yet, or of its last change; the message says why.",
                "AccountBlocked": "It lets nobody in: the tenant is suspended, archived or being deleted.",
            },
            "IdentityReady": {
                "": "Somebody can come in.",
                "ApiKeys": "By API keys.",
                "Closed": "The tenant is archived or is being deleted: nobody can.",
            },
            "QuotaReady": {
                "": "Its bounds are in force.",
                "InForce": "What its object says is counted; the message names the bounds.",
                "Warning": "They are, and of a limit more is used than it warns at (`warnAt`, or 80 %); the message names it.",
                "Reached": "They are, and a limit is used wholly; the message names it.",
            },
            "RegionsReady": {
                "": "A region takes its runs.",
                "Serving": "The region that was asked does.",
                "Cordoned": "The region that was asked takes no new runs (`spec.cordoned` of its Region).",
                "NotRegistered": "The region that was asked is not in the database: run `hansa migrate` in it.",
            },
            "WorkersReady": {
                "": "Workers of its own are there. Only of a tenant with `isolation.workers: Dedicated`.",
                "Serving": "At least one worker that was started for the tenant was heard of within the last minute and a half.",
                "NoWorker": "None was: its runs wait. Start one with `HANSA_WORKER_TENANT`.",
            },
            "IsolationVerified": {
                "": "A probe has lately tried to reach one tenant's rows as another, in every table, and could not.",
                "ProbesPassed": "No wall has a hole.",
                "Breached": "A wall has a hole; the message names the table, and the policy or the statement that got through.",
                "ProbeStale": "The last probe is too long ago: is a worker running?",
                "NotProbed": "None has run yet.",
            },
            "NamespacesReady": {
                "": "The tenant has its namespaces in Kubernetes, with what belongs in them. Only of a Tenant in Kubernetes.",
                "NamespacesMade": "They are there, with their bounds and bindings.",
                "NamespaceNotMade": "The API server refused something; the message says what.",
            },
            "Ready": {
                "": "All of the above is so, and the tenant is at work.",
                "AllReady": "It is.",
                "Suspended": "`spec.suspend` is set: no run starts, and those under way are held.",
                "Archived": "The tenant was deleted with the policy `Retain`: kept, and closed until it is restored.",
                "Deleting": "What the tenant has is being removed.",
                "NotReady": "Another condition is not so; the message names it.",
            },
        },
        "ModelProvider": {
            "CredentialsReady": {
                "": "The labelled Secret that its `credentials` name is in the tenant's secret store. Only where there is one.",
                "SecretCopied": "It is.",
                "SecretRefused": "It is not; the message says why.",
            },
        },
        "ToolServer": {
            "Reachable": {
                "": "The server answered when it was asked for its tools.",
                "Answers": "It did.",
                "NoAnswer": "It did not, or not as it should; the message says how. It is asked again each minute.",
            },
            "CredentialsReady": {
                "": "The labelled Secret that its `credentials` name is in the tenant's secret store. Only where there is one.",
                "SecretCopied": "It is.",
                "SecretRefused": "It is not; the message says why.",
            },
        },
    }
)
"""Kind -> type -> reason -> meaning; the meaning under the empty reason is that of the type."""

REPORTED: Mapping[str, str] = MappingProxyType(
    {
        "Ready": "The control plane has the object as it is written, and nothing is wrong with it.",
        "Suspended": "`spec.suspend` is set: the control plane holds its runs.",
        "NamespaceUnclaimed": "No Tenant claims the object's namespace. It continues by itself when one does.",
        "ReferenceNotFound": "What the object names is not there. It continues by itself when it appears.",
        "DependencyNotReady": "What the object names is there, and the control plane has not taken it. It continues by itself when it has.",
        "Invalid": "The control plane does not take what is written; the message says where and why. Only a change of the object helps.",
        "Conflict": "Someone else manages the object of this name; the message names the owner. `hansa takeover` moves it on purpose.",
        "NameTaken": "Another namespace of the same tenant has an object of this kind and name, and had it first.",
        "QuotaExceeded": "The tenant may have no more of it.",
        "TenantClosed": "The tenant is archived or being deleted.",
        "NamespaceTaken": "Another Tenant claimed one of the namespaces first; the message names it.",
        "NamespaceReserved": "One of the namespaces belongs to Kubernetes or to the platform itself.",
        "Provisioning": "The control plane has taken the object and is not done with it.",
        "NotReady": "The control plane says that something is wrong with it; the message says what.",
        "ControlPlaneUnavailable": "The control plane can't be reached, or is not ready. It continues by itself when it is.",
        "ClusterUnavailable": "The API server refused or did not answer something. It is tried again.",
        "Forbidden": "A credential of the operator does not allow it; the message says which.",
        "Disabled": "The annotation `hansa.dev/reconcile: disabled` is set: the operator leaves the object alone.",
        "Deleting": "The object is being deleted, and the control plane is not done with it.",
        "DeletionRefused": "The control plane does not delete it; the message says why. See there for the way out.",
        "TakenOver": "The platform answers for the object in another place than this namespace: an error of the installation.",
    }
)
"""Reason -> meaning, of `Ready`, `Reconciling` and `Stalled` as the operator reports them."""


def types_of(kind: str) -> Mapping[str, str]:
    """The conditions that an object of a kind can have in Kubernetes, in the order of its page, with what each is about."""
    own = {type_: reasons[""] for type_, reasons in CONDITIONS.get(kind, {}).items() if type_ != "Ready"}
    return {"Ready": READY, "Reconciling": RECONCILING, "Stalled": STALLED, **own}
