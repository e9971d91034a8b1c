"""A second look at an answer: screen, detector, DeFrame. It is given its callables."""

from antibias.detector import Finding
from antibias.prompt import Generate, Prompt, Reply
from antibias.review import Review, ReviewSettings, review
from antibias.screen import screen_prompt

__all__ = [
    "Finding",
    "Generate",
    "Prompt",
    "Reply",
    "Review",
    "ReviewSettings",
    "review",
    "screen_prompt",
]
