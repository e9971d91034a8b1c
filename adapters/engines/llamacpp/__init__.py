"""llama.cpp as a managed child process."""

from adapters.engines.llamacpp.engine import LlamaCppEngine

__all__ = ["LlamaCppEngine"]
