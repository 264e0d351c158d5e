"""What passes between an agent and a provider, without the tenant's secrets: requests, answers, live text, and what went wrong."""

from typing import TypeVar
from uuid import UUID

import msgspec

from hansa.llm.model import Hearing
from hansa.secrets.redaction import Redactor
from hansa_sdk import LLMRequest, LLMResponse, ProviderError

T = TypeVar("T", LLMRequest, LLMResponse)


class Veil:
    """Strikes out what was looked up for a tenant; for one that uses no secrets it does nothing."""

    def __init__(self, redactor: Redactor, tenant_id: UUID) -> None:
        self._redactor = redactor
        self._tenant_id = tenant_id

    def request(self, request: LLMRequest) -> LLMRequest:
        """What is asked: no model is shown a secret, whoever wrote it into the conversation."""
        return self._cleaned(request, LLMRequest)

    def response(self, response: LLMResponse) -> LLMResponse:
        """What was answered."""
        return self._cleaned(response, LLMResponse)

    def text(self, text: str) -> str:
        """A text for people."""
        return self._redactor.text(self._tenant_id, text)

    def error(self, error: ProviderError) -> None:
        """What went wrong, changed in its place: some providers repeat the key that they refuse."""
        error.detail, error.hint = self.text(error.detail), self.text(error.hint)
        error.args = (error.detail,)

    def live(self, live: Hearing) -> "VeiledText":
        """For text that comes in pieces."""
        return VeiledText(self._redactor, self._tenant_id, live)

    def _cleaned(self, value: T, kind: type[T]) -> T:
        if not self._redactor.forms(self._tenant_id):
            return value
        return msgspec.convert(self._redactor.value(self._tenant_id, msgspec.to_builtins(value)), kind)


class VeiledText:
    """Passes on pieces; what might be the beginning of a secret waits for the next one."""

    def __init__(self, redactor: Redactor, tenant_id: UUID, live: Hearing) -> None:
        self._stream = redactor.stream(tenant_id)
        self._live = live

    def text(self, piece: str) -> None:
        """Take a piece. Something is said of each, if only that it came: who pays for an answer must know that it has begun."""
        self._live.text(self._stream.feed(piece))

    def end(self) -> None:
        """No more comes."""
        rest = self._stream.end()
        if rest:
            self._live.text(rest)
