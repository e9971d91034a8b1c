"""From chat messages to tokens, by the model's own chat template."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from jinja2 import TemplateError

from adapters.engines.base import GenerateRequest, Token
from adapters.engines.chat_template import names
from adapters.engines.mlx.grammar import Grammars
from adapters.engines.mlx.job import Prompt
from adapters.engines.openai_wire import message_fields
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

    @property
    def variables(self) -> frozenset[str] | None:
        """The names that the chat template reads; None where it is no text."""
        template = self._tokenizer._tokenizer.chat_template
        return names(template) if isinstance(template, str) else None

    @property
    def vocabulary(self) -> int:
        return len(self._tokenizer._tokenizer)

    def tokenize(self, request: GenerateRequest, *, answer: bool) -> list[Token]:
        """The tokens of the request's prompt, each with its text."""
        tokens = self._render(request, answer=answer)
        return [Token(token, str(self._tokenizer.decode([token]))) for token in tokens]

    def make(self, request: GenerateRequest) -> Prompt:
        """Raises PromptTooLongError, and RequestError for messages or a schema it can't take."""
        tokens = self._render(request, answer=True)
        if len(tokens) >= self._context:
            raise PromptTooLongError(
                f"The prompt has {len(tokens)} tokens; the context holds {self._context}.",
                param="messages",
                fix="Send fewer or shorter messages.",
            )
        schema = request.sampling.json_schema
        grammar = None if schema is None else self._grammars.make(schema)
        return Prompt(tokens, self._boundary(request, tokens), grammar)

    def _boundary(self, request: GenerateRequest, tokens: list[int]) -> int:
        if not self._boundaries or request.prompt is not None:
            return 0
        shared = zip(tokens[:-1], self._render(request, answer=False), strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], shared))

    def _render(self, request: GenerateRequest, *, answer: bool) -> list[int]:
        if request.prompt is not None:
            return list(self._tokenizer.encode(request.prompt))
        try:
            return list(
                self._tokenizer.apply_chat_template(
                    message_fields(request.messages),
                    add_generation_prompt=answer,
                    **(request.variables or {}),
                )
            )
        except TemplateError as error:
            raise RequestError(
                f"The model's chat template refuses these messages: {error}.", param="messages"
            ) from error
