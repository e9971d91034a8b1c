"""The tone of a draft: its strong words, and the draft without them."""

from __future__ import annotations

import re

_STRONG = """
absolutely amazing awesome awful awfully best brilliant certainly clearly definitely delighted
disgusting doubtless dreadful excellent excited exciting extremely fantastic fortunately glad great
happily happy horrible incredible incredibly love lovely obviously of\\ course perfect perfectly
pleased proud ridiculous sadly sorry stupid superb surely terrible totally undoubtedly
unfortunately wonderful worst
absolument adorable affreux certainement clairement désolé évidemment excellent extraordinaire
fantastique formidable génial hélas heureusement horrible incroyable magnifique malheureusement
merveilleux parfait parfaitement ravi stupide superbe totalement
"""
_WORDS = "|".join(sorted(re.split(r"(?<!\\)\s+", _STRONG.strip()), key=len, reverse=True))
_STRONG_WORD = re.compile(rf"\b(?:{_WORDS})\b[,!]?[ \t]?", re.I)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_EMOTION = re.compile(r"[\u2600-\u27bf\U0001f300-\U0001faff]\ufe0f?[ \t]?")
_SHOUT = re.compile(r"!+(?!=)")


def strength(text: str) -> int:
    """How many strong words, exclamations and emoji the prose of a text has."""
    prose = _CODE.sub(" ", text)
    return sum(len(found.findall(prose)) for found in (_STRONG_WORD, _SHOUT, _EMOTION))


def neutral(text: str) -> str:
    """The text without them; code stays as it is."""
    parts: list[str] = []
    end = 0
    for code in _CODE.finditer(text):
        parts += [_calm(text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, _calm(text[end:])])


def _calm(prose: str) -> str:
    return _SHOUT.sub(".", _EMOTION.sub("", _STRONG_WORD.sub("", prose)))
