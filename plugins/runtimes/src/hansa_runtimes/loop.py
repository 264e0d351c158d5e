"""The runtime `loop`: ask the model, make the tool calls it wants, ask again, until it answers.

With an output schema the answer must be JSON that obeys it; a wrong one is shown to the model with the reason, at most
`MAX_INVALID_ANSWERS` times. Deterministic between steps: nothing here reads a clock or a random number.
"""

from typing import Any

import jsonschema_rs
import msgspec

from hansa_sdk import LLMRequest, LLMResponse, Message, Role, RunContext, RunFailed, StopReason, ToolOutcome

MAX_INVALID_ANSWERS = 3
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)


class Loop:
    """Model and tools until done."""

    name = "loop"

    async def run(self, context: RunContext) -> Any:
        agent = context.agent
        if agent.runtime_config:
            raise RunFailed(f"runtime loop takes no config, got {', '.join(sorted(agent.runtime_config))}", code="runtime_config")
        validator = _validator(agent.output_schema)
        messages, wrong = _opening(context), 0
        for _ in range(agent.limits.turns):
            response = await context.llm(
                LLMRequest(
                    messages=tuple(messages),
                    tools=context.tools,
                    output_schema=agent.output_schema,
                    max_tokens=agent.max_tokens,
                    temperature=agent.temperature,
                )
            )
            messages.append(Message(Role.ASSISTANT, response.text, response.tool_calls))
            if response.tool_calls:
                messages.extend(await self._calls(context, response))
                continue
            problem, output = _answer(response, validator)
            if problem is None:
                return output
            wrong += 1
            if wrong >= MAX_INVALID_ANSWERS or response.stop_reason is StopReason.REFUSAL:
                raise RunFailed(
                    problem, code="output_invalid", hint="A stronger model, plainer instructions or a larger params.maxTokens help."
                )
            messages.append(
                Message(Role.USER, f"That answer can't be used: {problem}. Answer again, with JSON that obeys the schema and nothing else.")
            )
        raise RunFailed(
            f"the model was asked {agent.limits.turns} times and had not finished",
            code="limit_turns",
            hint="Raise spec.limits.turns of the agent.",
        )

    async def _calls(self, context: RunContext, response: LLMResponse) -> list[Message]:
        """Make the calls one after the other, in the model's order: later ones may build on the effects of earlier ones."""
        answers: list[Message] = []
        for call in response.tool_calls:
            if call.malformed is not None:
                outcome = await context.tool(call.name, {"malformed": call.malformed})
                if not outcome.is_error:
                    outcome = ToolOutcome("the arguments were not a JSON object", is_error=True)
            else:
                outcome = await context.tool(call.name, call.arguments)
            answers.append(Message(Role.TOOL, _text(outcome.content), tool_call_id=call.id, is_error=outcome.is_error))
        return answers


def _opening(context: RunContext) -> list[Message]:
    agent = context.agent
    messages = [Message(Role.SYSTEM, agent.instructions)]
    for example in agent.examples:
        messages.append(Message(Role.USER, _put(agent.input_template, example.input)))
        messages.append(Message(Role.ASSISTANT, _text(example.output)))
    messages.extend(context.history)
    messages.append(Message(Role.USER, _put(agent.input_template, _text(context.input))))
    return messages


def _put(template: str | None, text: str) -> str:
    return text if template is None else template.replace("{input}", text, 1)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _validator(schema: dict[str, Any] | None) -> Any:
    if schema is None:
        return None
    try:
        # Offline: a schema comes from whoever wrote the agent, and nothing is fetched or read for it.
        return jsonschema_rs.validator_for(schema, offline=True, pattern_options=_PATTERNS)
    except jsonschema_rs.ValidationError as error:
        raise RunFailed(
            f"spec.outputSchema is not a valid JSON Schema: {error.message}", code="output_schema", hint="Mend it and apply."
        ) from error


def _answer(response: LLMResponse, validator: Any) -> tuple[str | None, Any]:
    """(what is wrong, None) or (None, the output)."""
    if response.stop_reason is StopReason.REFUSAL:
        return f"the model refused to answer: {response.text}", None
    if validator is None:
        return None, response.text
    if response.stop_reason is StopReason.MAX_TOKENS:
        return "the answer was cut off at its token limit", None
    try:
        output = msgspec.json.decode(response.text)
    except msgspec.DecodeError as error:
        return f"it is not JSON ({error})", None
    for error in validator.iter_errors(output):
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
        return f"at ${path}: {error.message}", None
    return None, output
