"""Adapters on disk in three forms, each read as the one canonical ``Lora`` and written from it."""

from adapters.forms.reading import form_of, read_lora

__all__ = ["form_of", "read_lora"]
