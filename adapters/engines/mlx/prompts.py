"""From chat messages to tokens, by the model's own chat template."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from jinja2 import TemplateError

from adapters.engines.base import GenerateRequest, Message
from adapters.engines.mlx.grammar import Grammars
from adapters.engines.mlx.job import Prompt
from kiki.errors import PromptTooLongError, RequestError


class Prompts:
    """Renders prompts and compiles schemas. For one thread; that of the model is never kept busy.

    ``tokenizer`` is mlx_lm's. With ``boundaries``, prompts are rendered a second time to find the
    part that the next turn of the conversation begins with.
    """

    def __init__(self, tokenizer: Any, context_tokens: int, *, boundaries: bool) -> None:
        self._tokenizer = tokenizer
        self._context = context_tokens
        self._boundaries = boundaries
        self._grammars = Grammars(tokenizer._tokenizer, set(tokenizer.eos_token_ids))

    def make(self, request: GenerateRequest) -> Prompt:
        """Raises PromptTooLongError, and RequestError for messages or a schema it can't take."""
        tokens = self._render(request.messages, answer=True)
        if len(tokens) >= self._context:
            raise PromptTooLongError(
                f"The prompt has {len(tokens)} tokens; the context holds {self._context}.",
                param="messages",
                fix="Send fewer or shorter messages.",
            )
        schema = request.sampling.json_schema
        grammar = None if schema is None else self._grammars.make(schema)
        return Prompt(tokens, self._boundary(request.messages, tokens), grammar)

    def _boundary(self, messages: Sequence[Message], tokens: list[int]) -> int:
        if not self._boundaries:
            return 0
        shared = zip(tokens[:-1], self._render(messages, answer=False), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], shared))

    def _render(self, messages: Sequence[Message], *, answer: bool) -> list[int]:
        chat = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return list(self._tokenizer.apply_chat_template(chat, add_generation_prompt=answer))
        except TemplateError as error:
            raise RequestError(
                f"The model's chat template refuses these messages: {error}.", param="messages"
            ) from error
