"""Answers that keep a JSON schema: the tokens that would break it are masked out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

from kiki.errors import RequestError

if TYPE_CHECKING:
    import mlx.core as mx
    from llguidance._lib import JsonCompileOptions

# A small model that may write any amount of white space never comes to an end.
WHITESPACE = r"[ \n]{1,8}"


class Grammars:
    """Makes grammars for one tokenizer of Hugging Face's fast kind."""

    def __init__(self, tokenizer: Any, ends: set[int]) -> None:
        self._tokenizer = tokenizer
        self._ends = ends
        self._prepared: LLTokenizer | None = None

    def make(self, schema: Mapping[str, object]) -> Grammar:
        """A grammar for one row. Raises RequestError for a schema that can't be kept."""
        try:
            if self._prepared is None:  # it reads the whole vocabulary: about a second
                self._prepared = from_tokenizer(self._tokenizer, eos_token=sorted(self._ends))
            options: JsonCompileOptions = {"whitespace_pattern": WHITESPACE}
            grammar = LLMatcher.grammar_from_json_schema(dict(schema), overrides=options)
            matcher = LLMatcher(self._prepared, grammar, log_level=0)
        except (TypeError, ValueError) as error:
            raise _refused(str(error)) from error
        if matcher.is_error():
            raise _refused(matcher.get_error())
        return Grammar(matcher, self._ends)


class Grammar:
    """The state of one row's answer. Called with the tokens so far and the next logits.

    ``error`` is set where the grammar gave up; the row is to fail then. It isn't raised here, in
    the middle of a step that other rows share.
    """

    def __init__(self, matcher: LLMatcher, ends: set[int]) -> None:
        self._matcher = matcher
        self._ends = ends
        self._begun = False
        self.error: str | None = None

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        """``logits`` (1, vocabulary), with -inf where a token would break the schema."""
        if self._begun:
            token = int(np.array(tokens[-1]))
            if token in self._ends:  # the batch computes one step more than it delivers
                return logits
            self._matcher.consume_token(token)
        self._begun = True
        if self._matcher.is_error():
            self.error = self._matcher.get_error()
            return logits
        return self._mask(logits)

    def _mask(self, logits: mx.array) -> mx.array:
        import mlx.core as mx

        allowed = np.zeros(logits.shape[-1], bool)  # a model may have more logits than tokens
        bias = np.frombuffer(self._matcher.compute_logit_bias(), np.uint8)[: allowed.size]
        allowed[: bias.size] = bias != 0
        return mx.where(mx.array(allowed), logits, -mx.inf)


def _refused(reason: str) -> RequestError:
    return RequestError(
        f"The JSON schema can't be kept: {reason.strip()}",
        param="response_format",
        fix="Simplify the schema.",
    )
