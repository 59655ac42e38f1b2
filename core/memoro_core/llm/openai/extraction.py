"""Graph extraction over the OpenAI protocol: strict schema, one repair, and salvage of what is complete."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from memoro_core.errors import ProviderError
from memoro_core.llm.model import Extraction, ExtractionSource, Operation, Usage
from memoro_core.llm.openai.answers import SCHEMA, Salvage, read_answer, to_graph
from memoro_core.llm.openai.endpoint import OpenAIEndpoint
from memoro_core.llm.openai.failures import invalid_response
from memoro_core.llm.openai.vectors import read_tokens
from memoro_core.llm.ports import Admit
from memoro_core.llm.prompts import REPAIR_BYTES, extraction_messages, extraction_size, repair_messages
from memoro_core.tracing import current_trace_parent, trace_headers

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam
    from openai.types.shared_params import ResponseFormatJSONSchema

MAX_OUTPUT_TOKENS: Final = 4_096
SPECIAL_TOKENS: Final = 64
"""The most that a model puts around the messages of a request of its own accord."""
_FORMAT: Final[ResponseFormatJSONSchema] = {
    "type": "json_schema",
    "json_schema": {"name": "knowledge_graph", "strict": True, "schema": SCHEMA},
}
_SCHEMA_BYTES: Final = len(json.dumps(_FORMAT))


class OpenAIExtractionProvider:
    """Entities and relationships from a chat model behind an OpenAI-compatible endpoint.

    An unusable answer is sent back once, with what is wrong with it; if the second is no better, the complete items of
    either are kept and the extraction is partial, as it is when the answer was cut off at 4,096 tokens. Usage counts
    every call, and stands in the ProviderError when the last of them fails. Both requests together use no more than
    `bound`; before the second leave is asked for once more.
    """

    def __init__(self, endpoint: OpenAIEndpoint, *, model: str) -> None:
        self._endpoint = endpoint
        self._model = model

    async def extract(self, source: ExtractionSource, *, admit: Admit | None = None) -> Extraction:
        """The graph of one text; empty when it holds no facts. Raises ProviderError."""
        usage: list[Usage] = []
        await self._endpoint.acquire()
        try:
            if admit is not None:
                await admit()
            return await self._extract(source, usage, admit)
        except ProviderError as error:
            error.usage = tuple(usage)
            raise
        finally:
            self._endpoint.release()

    def bound(self, source: ExtractionSource) -> Usage:
        """A token per byte of the prompt, the schema included, asked twice, each time with the longest answer.

        An answer that goes back into the prompt has as many tokens there as it had when it came.
        """
        asked = _most_asked(source)
        asked_again = asked + MAX_OUTPUT_TOKENS + REPAIR_BYTES
        return Usage("openai", self._model, Operation.EXTRACT, asked + asked_again, 2 * MAX_OUTPUT_TOKENS)

    async def _extract(self, source: ExtractionSource, usage: list[Usage], admit: Admit | None) -> Extraction:
        asked = extraction_messages(source)
        content, cut = await self._ask(asked, usage)
        first = read_answer(content)
        if first.problem is None or cut:
            return _extraction(first, usage, partial=first.problem is not None)
        if usage[0].input_tokens > _most_asked(source) or usage[0].output_tokens > MAX_OUTPUT_TOKENS:
            # Of what both may use there may not be enough left.
            if not first:
                raise invalid_response("it has no usable item, and used more than it may")
            return _extraction(first, usage, partial=True)
        if admit is not None:
            await admit()
        content, cut = await self._ask(repair_messages(asked, content, first.problem), usage)
        second = read_answer(content)
        if second.problem is None:
            return _extraction(second, usage, partial=False)
        best = second if second else first
        if not best and not cut:
            raise invalid_response("it has no usable item, asked twice")
        return _extraction(best, usage, partial=True)

    async def _ask(self, messages: list[dict[str, str]], usage: list[Usage]) -> tuple[str, bool]:
        """The answer's text, and whether it was cut off; what it cost is added to `usage` first of all."""
        answer = await self._endpoint.send(
            lambda client: client.chat.completions.with_raw_response.create(
                model=self._model,
                messages=cast("list[ChatCompletionMessageParam]", messages),
                response_format=_FORMAT,
                max_completion_tokens=MAX_OUTPUT_TOKENS,
                extra_headers=trace_headers(current_trace_parent()),
            )
        )
        tokens_in, tokens_out = read_tokens(answer, "prompt_tokens"), read_tokens(answer, "completion_tokens")
        usage.append(
            Usage(
                "openai",
                self._model,
                Operation.EXTRACT,
                tokens_in or 0,
                tokens_out or 0,
                items=0 if usage else 1,
                # A model that has read nothing has not answered.
                unaccounted=not tokens_in or tokens_out is None,
            )
        )
        return _content(answer)


def _most_asked(source: ExtractionSource) -> int:
    """The most tokens that go in when a text is asked about first."""
    return extraction_size(source) + _SCHEMA_BYTES + SPECIAL_TOKENS


def _content(answer: dict[str, Any]) -> tuple[str, bool]:
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise invalid_response("it has no message")
    finish = choice.get("finish_reason")
    if finish == "content_filter" or message.get("refusal"):
        raise ProviderError("the model declined to read this text", retryable=False)
    content = message.get("content")
    if isinstance(content, dict):  # some servers parse the JSON themselves
        content = json.dumps(content)
    if not isinstance(content, str):
        raise invalid_response("its message has no text")
    return content, finish == "length"


def _extraction(found: Salvage, usage: list[Usage], *, partial: bool) -> Extraction:
    entities, relationships, cut = to_graph(found.answer)
    return Extraction(entities, relationships, tuple(usage), partial=partial or cut)
