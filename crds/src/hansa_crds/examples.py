"""One example of each kind, as it stands on the kind's reference page, and what the kind does in a few sentences."""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct


class Page(Struct, frozen=True):
    """What a person writes of a kind: `text` in Markdown, `example` in YAML."""

    text: str
    example: str


PAGES: Mapping[str, Page] = MappingProxyType(
    {
        "Agent": Page(
            text="""\
An agent is what runs are made of: instructions, a model, tools and bounds. Applying a changed `spec` makes a new revision;
runs under way keep the one they started with. A text input is put into `inputTemplate` if there is one; `examples` are shown
to the model as earlier turns of the conversation. With an `outputSchema` the answer is JSON that obeys it, or the run fails
and says why.

With `rollout` a new revision is checked by a run of it before it serves; sessions keep the revision that they were begun with.

When the model cannot be used (its provider is down, refuses, or has no key), the `fallbacks` are tried in their order.""",
            example="""\
apiVersion: hansa.dev/v1alpha1
kind: Agent
metadata:
  name: review-triage
  namespace: default
spec:
  description: Says how a review feels.
  instructions: |
    You are given the review of a film. Say whether it is positive or negative.
  examples:
    - input: A joy from beginning to end.
      output: {sentiment: positive}
    - input: I wanted my evening back.
      output: {sentiment: negative}
  inputTemplate: "Review: {input}"
  model:
    alias: small
    params:
      temperature: 0
      maxTokens: 32
    fallbacks:
      - ref: openai/some-large-model
  tools:
    - plugin: clock
    - toolServer: search
      allow: [search]
  limits:
    turns: 4
    timeoutSeconds: 120
  rollout:
    smoke:
      input: I would see it again tomorrow.
      expect:
        cel: output.sentiment == "positive"
  outputSchema:
    type: object
    properties:
      sentiment:
        enum: [positive, negative]
    required: [sentiment]
    additionalProperties: false
""",
        ),
        "Tenant": Page(
            text="""\
A tenant is who shares the platform with others: its agents, runs, sessions and keys are seen by nobody else. No run of a
suspended tenant starts.""",
            example="""\
apiVersion: hansa.dev/v1alpha1
kind: Tenant
metadata:
  name: baltic-wool
spec:
  displayName: Baltic Wool Company
""",
        ),
        "Region": Page(
            text="""\
A region is a place where runs are carried out. A cordoned region accepts no new runs and finishes those it has, so that it
can be worked on.""",
            example="""\
apiVersion: hansa.dev/v1alpha1
kind: Region
metadata:
  name: north
spec:
  displayName: North
  cordoned: false
""",
        ),
        "ModelProvider": Page(
            text="""\
A model provider says where models are to be had: which plugin speaks to it, at which address, with which key, and under which
names agents may ask for its models. An agent names a model as `<provider>/<model>` or by an alias. The key is not part of the
object: `credentials.secret` names a secret of the tenant, `credentials.env` the worker's environment variable that holds it, one that
the operator admits (`HANSA_CREDENTIALS_ALLOW`). A secret is looked up for each call, so that a new version is used at once.""",
            example="""\
apiVersion: hansa.dev/v1alpha1
kind: ModelProvider
metadata:
  name: openai
  namespace: default
spec:
  plugin: openai
  endpoint: https://models.example.org/v1
  credentials:
    secret: models
    key: api-key
  models:
    - name: some-large-model
      aliases: [large]
    - name: some-small-model
      aliases: [small, fast]
  maxConcurrency: 8
""",
        ),
        "ToolServer": Page(
            text="""\
A tool server is an MCP server spoken to over streamable HTTP. Agents of the same namespace may call its tools by naming it in
their `tools`. After a crash a call whose outcome is unknown is repeated only if its effect allows it; `effects` says so for each
tool, because a server's own word is not taken for it.

The control plane asks the server for its tools whenever the object is applied, changed or not, and keeps the answer in the object's
`status`; runs use what is kept there. So a variable that `credentials` names must be set for the control plane as well as for the
workers; only those that the operator admits (`HANSA_CREDENTIALS_ALLOW`) are ever sent. A secret of the tenant is looked
up for each call. A server that can't be reached is stored all the same, and agents that use it are refused with the reason. No two
tools of one agent may have the same name. Both MCP 2026-07-28 and the revisions with
a session, 2025-11-25 and before, are spoken.""",
            example="""\
apiVersion: hansa.dev/v1alpha1
kind: ToolServer
metadata:
  name: search
  namespace: default
spec:
  endpoint: https://tools.example.org/mcp
  credentials:
    env: SEARCH_MCP_TOKEN
  allow: [search, fetch]
  effects:
    search: read
    fetch: read
""",
        ),
    }
)
