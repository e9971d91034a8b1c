"""Adapters on disk in three forms, each read as the one canonical ``Lora`` and written from it.

>>> lora = read_lora(Path("adapters/shipped/shell"))
>>> write_lora(lora, "mlx", Path("shell-mlx"))
"""

from adapters.forms.base import BaseShape, Heads, read_base_shape
from adapters.forms.reading import form_of, read_lora, read_stored
from adapters.forms.writing import Written, write_lora

__all__ = [
    "BaseShape",
    "Heads",
    "Written",
    "form_of",
    "read_base_shape",
    "read_lora",
    "read_stored",
    "write_lora",
]
