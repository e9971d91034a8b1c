"""llama.cpp as a managed child process."""

from adapters.engines.llamacpp.engine import LlamaCppEngine
from adapters.engines.llamacpp.precision import EXACT, Precision

__all__ = ["EXACT", "LlamaCppEngine", "Precision"]
