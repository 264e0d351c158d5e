"""The objects of Hansa, as people write them in YAML and send them to the API.

Knows nothing of files, databases, HTTP or Kubernetes clients: only what an object may contain. Each field here is obeyed
by the platform; a field that nothing obeys yet does not belong here. Rules that span fields are in `rules.py`, what names
and values look like in `parts.py`, what a Tenant says in `tenant.py`.

Warning: the bounds in `Meta` are promises to users. Widening one is safe, narrowing one breaks objects already stored.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta

from hansa_crds.parts import (
    ENV_PATTERN,
    REF_PATTERN,
    URL_PATTERN,
    AnnotationValue,
    Currency,
    Destination,
    DnsLabel,
    Effect,
    LabelValue,
    MetaKey,
    ModelAlias,
    ModelName,
    Part,
    PluginName,
    SecretKey,
    ToolName,
    ToolNameOrAll,
)
from hansa_crds.policies import ArgumentRule, CageBounds
from hansa_crds.rollout import AgentRollout
from hansa_crds.tenant import TenantSpec


class ObjectMeta(Part, frozen=True, kw_only=True):
    """How an object is named and found."""

    name: Annotated[DnsLabel, Meta(description="Name of the object, unique for its kind (and namespace).")]
    namespace: Annotated[
        DnsLabel | None,
        Meta(description="Namespace of an Agent, ModelProvider or ToolServer; left out: the one it is applied to."),
    ] = None
    labels: Annotated[dict[MetaKey, LabelValue], Meta(max_length=64, description="Labels to select objects by.")] = {}
    annotations: Annotated[
        dict[MetaKey, AnnotationValue],
        Meta(max_length=64, description="Notes of people and programs; the platform keeps them and does not read them."),
    ] = {}


class Example(Part, frozen=True, kw_only=True):
    """One exchange shown to the model before the conversation begins (few-shot)."""

    input: Annotated[str, Meta(min_length=1, max_length=8192, description="What a user would say.")]
    output: Annotated[Any, Meta(description="What the agent should answer: text, or any JSON value.")]


class ModelChoice(Part, frozen=True, kw_only=True):
    """One model: by `alias` or by `ref`, never both."""

    alias: Annotated[ModelAlias | None, Meta(description="Alias that a ModelProvider gives to one of its models; write this or `ref`.")] = (
        None
    )
    ref: Annotated[
        Annotated[str, Meta(max_length=317, pattern=REF_PATTERN)] | None,
        Meta(description="Provider and model as `provider/model`; write this or `alias`."),
    ] = None


class ModelParams(Part, frozen=True, kw_only=True):
    """How the model is asked. What is left out, the provider decides."""

    temperature: Annotated[
        Annotated[float, Meta(ge=0, le=2)] | None,
        Meta(description="Randomness of the answer: 0 is the most repeatable."),
    ] = None
    max_tokens: Annotated[
        Annotated[int, Meta(ge=1, le=65536)] | None,
        Meta(description="Most tokens of one answer of the model."),
    ] = None


class AgentModel(ModelChoice, frozen=True, kw_only=True):
    """The model an agent thinks with, and those that stand in for it."""

    params: Annotated[ModelParams, Meta(description="How the model is asked.")] = ModelParams()
    fallbacks: Annotated[
        tuple[ModelChoice, ...],
        Meta(max_length=8, description="Models to use, in this order, when the first one cannot be used."),
    ] = ()


class AgentRuntime(Part, frozen=True, kw_only=True):
    """The program that drives the agent: which one, and its own settings."""

    name: Annotated[PluginName, Meta(description="Name of a runtime that a loaded plugin brings.")] = "loop"
    config: Annotated[dict[str, Any], Meta(max_length=64, description="Settings of the runtime; the runtime says which it has.")] = {}


class SecretRef(Part, frozen=True, kw_only=True):
    """A secret of the tenant, by name."""

    secret: Annotated[DnsLabel, Meta(description="Name of a secret of the tenant (`hansa secrets`), looked up at each use.")]
    key: Annotated[SecretKey | None, Meta(description="Which value of the secret, when it is a JSON object or has several.")] = None


class AgentTools(Part, frozen=True, kw_only=True):
    """Tools an agent may call: those of a plugin, those of a ToolServer, or another agent; one of them in one entry."""

    plugin: Annotated[
        PluginName | None, Meta(description="Plugin whose tools the agent may call; write this, `toolServer` or `agent`.")
    ] = None
    tool_server: Annotated[
        DnsLabel | None,
        Meta(description="ToolServer of the same namespace whose tools the agent may call; write this, `plugin` or `agent`."),
    ] = None
    agent: Annotated[
        DnsLabel | None,
        Meta(description="Agent of the same namespace that may be called, as a tool of that name; write this, `plugin` or `toolServer`."),
    ] = None
    allow: Annotated[
        tuple[ToolName, ...], Meta(max_length=64, description="Names of the tools it may call; left out or empty: all of them.")
    ] = ()
    require_approval: Annotated[
        tuple[ToolNameOrAll, ...],
        Meta(max_length=64, description="Names of the tools that a person must approve before each call; `*`: all of the entry."),
    ] = ()
    secrets: Annotated[
        dict[ToolName, SecretRef],
        Meta(max_length=16, description="Secrets for the tools of a plugin that ask for such, by the name that the tool has for it."),
    ] = {}
    effect: Annotated[
        Effect | None,
        Meta(description="What repeating a call does, in place of what each tool of the entry declares. Not for agents."),
    ] = None
    untrusted: Annotated[
        bool | None,
        Meta(
            description=(
                "Whether answers hold text that strangers wrote, see `taint`; left out: what a plugin's tool says, true for a ToolServer"
                " and for an agent."
            )
        ),
    ] = None
    arguments: Annotated[tuple[ArgumentRule, ...], Meta(max_length=32, description="What the arguments of calls must obey.")] = ()
    cage: Annotated[
        CageBounds | None,
        Meta(description="Bounds of programs that its tools run in a cage; only for a `plugin`. Left out: the operator's."),
    ] = None


class AgentLimits(Part, frozen=True, kw_only=True):
    """Bounds of one run; the run fails with the limit's name when one is reached."""

    turns: Annotated[int, Meta(ge=1, le=200, description="Most times the model is asked in one run.")] = 16
    tokens: Annotated[int, Meta(ge=0, le=2**53 - 1, description="Most tokens (read and written) of one run; 0: no bound.")] = 0
    cost: Annotated[float, Meta(ge=0, le=1_000_000, description="Most that one run may cost by its models' prices; 0: no bound.")] = 0.0
    timeout_seconds: Annotated[
        int, Meta(ge=1, le=86400, description="Most seconds that one run is worked on; while it waits, none are counted.")
    ] = 600
    approval_seconds: Annotated[
        int, Meta(ge=0, le=31_536_000, description="Seconds after which an approval or question expires unanswered; 0: never.")
    ] = 86400
    concurrent_runs: Annotated[
        int, Meta(ge=0, le=100_000, description="Most runs of this agent at once, over all workers; further ones wait; 0: no bound.")
    ] = 0


class AgentRetry(Part, frozen=True, kw_only=True):
    """What happens when a run fails for a passing reason (a provider that is away): it goes on from its last step later."""

    attempts: Annotated[int, Meta(ge=1, le=20, description="Most attempts, the first one included; 1: none is repeated.")] = 1
    backoff_seconds: Annotated[
        float, Meta(ge=0.1, le=86400, description="Seconds before the second attempt; doubled before each further one, up to a day.")
    ] = 10.0


class AgentPlacement(Part, frozen=True, kw_only=True):
    """Where an agent's runs are worked on."""

    pool: Annotated[DnsLabel, Meta(description="Only workers that serve this pool (HANSA_WORKER_POOLS) take its runs.")] = "default"


class AgentSpec(Part, frozen=True, kw_only=True):
    """What an agent is."""

    instructions: Annotated[
        str, Meta(min_length=1, max_length=32768, description="What the agent is told before anything else: its system prompt.")
    ]
    model: Annotated[AgentModel, Meta(description="The model the agent thinks with.")]
    description: Annotated[str, Meta(max_length=1000, description="For people: what the agent is for.")] = ""
    examples: Annotated[
        tuple[Example, ...], Meta(max_length=32, description="Exchanges shown to the model before the conversation (few-shot).")
    ] = ()
    input_template: Annotated[
        Annotated[str, Meta(max_length=8192)] | None,
        Meta(description="How a text input is put before the model; contains `{input}` exactly once. Left out: the input alone."),
    ] = None
    runtime: Annotated[AgentRuntime, Meta(description="The program that drives the agent.")] = AgentRuntime()
    tools: Annotated[tuple[AgentTools, ...], Meta(max_length=32, description="Tools the agent may call; left out: none.")] = ()
    taint: Annotated[
        Literal["Off", "RequireApproval"],
        Meta(
            description=(
                "What follows once a run has read text that strangers wrote: with `RequireApproval` a person must approve its calls with"
                " `keyed` and `unsafe` effects, and its calls of agents."
            )
        ),
    ] = "Off"
    egress: Annotated[
        Annotated[tuple[Destination, ...], Meta(max_length=64)] | None,
        Meta(
            description=(
                "Hosts that its plugins' tools may send requests to; it narrows what operator and tenant let out. Left out: no narrower;"
                " empty: none."
            )
        ),
    ] = None
    limits: Annotated[AgentLimits, Meta(description="Bounds of one run.")] = AgentLimits()
    output_schema: Annotated[
        dict[str, Any] | None,
        Meta(description="JSON Schema that the agent's answer must obey; has a `type`. Left out: the answer is text."),
    ] = None
    concurrency: Annotated[
        Literal["Enqueue", "Reject", "Interrupt", "Rollback"],
        Meta(
            description=(
                "What a new run does in a session that has one under way: `Enqueue` waits for its turn, `Reject` is refused, `Interrupt`"
                " cancels what is under way, `Rollback` does that and leaves it out of the session's history."
            )
        ),
    ] = "Enqueue"
    retry: Annotated[AgentRetry, Meta(description="What happens when a run fails for a passing reason.")] = AgentRetry()
    placement: Annotated[AgentPlacement, Meta(description="Where its runs are worked on.")] = AgentPlacement()
    rollout: Annotated[
        AgentRollout | None, Meta(description="How a new revision is checked before it serves; left out: it serves at once.")
    ] = None
    suspend: Annotated[bool, Meta(description="True: no run of this agent starts, and those under way are held until it is false.")] = False


class RegionSpec(Part, frozen=True, kw_only=True):
    """A place where runs are carried out."""

    display_name: Annotated[str, Meta(max_length=200, description="Name for people.")] = ""
    cordoned: Annotated[bool, Meta(description="True: the region accepts no new runs; runs under way go on.")] = False


class Credentials(Part, frozen=True, kw_only=True):
    """Where a worker finds a secret. The secret itself is never part of an object."""

    env: Annotated[
        Annotated[str, Meta(min_length=1, max_length=128, pattern=ENV_PATTERN)] | None,
        Meta(description="Name of the worker's environment variable that holds the secret, not the secret; write this or `secret`."),
    ] = None
    secret: Annotated[
        DnsLabel | None, Meta(description="Name of a secret of the tenant (`hansa secrets`), looked up at each use; write this or `env`.")
    ] = None
    key: Annotated[SecretKey | None, Meta(description="Which value of the secret, when it is a JSON object or has several.")] = None


class ModelPrices(Part, frozen=True, kw_only=True):
    """What a model costs, in one currency for all models that an agent may use."""

    input: Annotated[float, Meta(ge=0, le=1_000_000, description="Price of a million tokens that the model reads.")] = 0.0
    output: Annotated[float, Meta(ge=0, le=1_000_000, description="Price of a million tokens that the model writes.")] = 0.0
    currency: Annotated[
        Currency | None, Meta(description="Currency of the prices, such as `EUR`; left out: that of the tenant's budget.")
    ] = None


class ProviderModel(Part, frozen=True, kw_only=True):
    """One model that a provider offers."""

    name: Annotated[ModelName, Meta(description="The model's name at the provider.")]
    aliases: Annotated[tuple[ModelAlias, ...], Meta(max_length=16, description="Other names by which agents may ask for it.")] = ()
    prices: Annotated[ModelPrices, Meta(description="What it costs; left out: nothing.")] = ModelPrices()


class ModelProviderSpec(Part, frozen=True, kw_only=True):
    """Where models are to be had."""

    plugin: Annotated[PluginName, Meta(description="Kind of provider that a loaded plugin brings, such as `openai`.")]
    models: Annotated[tuple[ProviderModel, ...], Meta(min_length=1, max_length=200, description="The models agents may use.")]
    endpoint: Annotated[
        Annotated[str, Meta(max_length=2048, pattern=URL_PATTERN)] | None,
        Meta(description="Address (http or https) of the provider; left out: the plugin's own."),
    ] = None
    credentials: Annotated[Credentials | None, Meta(description="Where the worker finds the provider's key; left out: none is sent.")] = (
        None
    )
    max_concurrency: Annotated[int, Meta(ge=0, le=1000, description="Most calls at once from one worker; 0: the plugin's own bound.")] = 0


class ToolServerSpec(Part, frozen=True, kw_only=True):
    """A server of tools, spoken to by MCP over streamable HTTP."""

    endpoint: Annotated[str, Meta(max_length=2048, pattern=URL_PATTERN, description="Address (http or https) of the MCP server.")]
    credentials: Annotated[
        Credentials | None, Meta(description="Where the worker finds the server's bearer token; left out: none is sent.")
    ] = None
    allow: Annotated[
        tuple[ToolName, ...], Meta(max_length=256, description="Tools of the server that may be used; left out or empty: all.")
    ] = ()
    effects: Annotated[
        dict[ToolName, Effect],
        Meta(
            max_length=256,
            description=(
                "What repeating a call does, by tool: `read` changes nothing, `idempotent` changes nothing twice, `keyed` obeys an"
                " idempotency key, `unsafe` acts again. A tool not listed is `unsafe` and is never repeated after a crash."
            ),
        ),
    ] = {}


ApiVersion = Annotated[Literal["hansa.dev/v1alpha1"], Meta(description="Version of the object's format: `hansa.dev/v1alpha1`.")]
Metadata = Annotated[ObjectMeta, Meta(description="How the object is named and found.")]


class Agent(Part, frozen=True, kw_only=True, tag_field="kind", tag="Agent"):
    """An agent: instructions, a model, tools and bounds. Each change of its spec makes a new revision."""

    api_version: ApiVersion
    metadata: Metadata
    spec: Annotated[AgentSpec, Meta(description="What the agent is.")]


class Tenant(Part, frozen=True, kw_only=True, tag_field="kind", tag="Tenant"):
    """A tenant: who shares the platform with others and sees nothing of theirs."""

    api_version: ApiVersion
    metadata: Metadata
    spec: Annotated[TenantSpec, Meta(description="Who the tenant is.")] = TenantSpec()


class Region(Part, frozen=True, kw_only=True, tag_field="kind", tag="Region"):
    """A region: a place where runs are carried out."""

    api_version: ApiVersion
    metadata: Metadata
    spec: Annotated[RegionSpec, Meta(description="What the region accepts.")] = RegionSpec()


class ModelProvider(Part, frozen=True, kw_only=True, tag_field="kind", tag="ModelProvider"):
    """A model provider: where models are to be had, under which names, with which key."""

    api_version: ApiVersion
    metadata: Metadata
    spec: Annotated[ModelProviderSpec, Meta(description="Where the models are.")]


class ToolServer(Part, frozen=True, kw_only=True, tag_field="kind", tag="ToolServer"):
    """A tool server: tools that agents may call over MCP."""

    api_version: ApiVersion
    metadata: Metadata
    spec: Annotated[ToolServerSpec, Meta(description="Where the tools are.")]


HansaObject = Agent | Tenant | Region | ModelProvider | ToolServer
