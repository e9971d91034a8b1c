"""The cerebellum: what of a turn is kept, and what it does to what was known.

concepts.py    a statement as what it is about, the same in English and French (concepts.txt)
memorize.py    SAVE or SKIP by rules, sentence by sentence
arbitrate.py   UPDATE, DELETE or NONE by rules and embedding similarity
model.py       both by a small model, held to a JSON schema
cerebellum.py  the model within its time, else the rules
"""

from __future__ import annotations

from memory.cerebellum.arbitrate import Action, Verdict
from memory.cerebellum.cerebellum import Cerebellum
from memory.cerebellum.memorize import Kept
from memory.cerebellum.model import Ask

__all__ = ["Action", "Ask", "Cerebellum", "Kept", "Verdict"]
