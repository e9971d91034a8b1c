"""The floor every room stands on: errors, assets and the version. It imports no room."""

__version__ = "0.1.0"
