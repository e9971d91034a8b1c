"""Bring in adapters that others published: from a folder, a file, an archive or the hub."""

from adapters.imports.bringing import Imported, import_adapter
from adapters.imports.sources import open_source

__all__ = ["Imported", "import_adapter", "open_source"]
