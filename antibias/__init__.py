"""A second look at an answer: screen, detector, DeFrame. It is given its callables."""

from antibias.detector import Finding, screen_prompt
from antibias.prompt import Embed, Generate, Prompt, Reply
from antibias.review import Review, ReviewSettings, review

__all__ = [
    "Embed",
    "Finding",
    "Generate",
    "Prompt",
    "Reply",
    "Review",
    "ReviewSettings",
    "review",
    "screen_prompt",
]
