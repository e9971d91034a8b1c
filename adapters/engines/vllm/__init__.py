"""vLLM, run as a child process or reached at one or several addresses."""

from adapters.engines.vllm.config import VllmConfig
from adapters.engines.vllm.engine import VllmEngine

__all__ = ["VllmConfig", "VllmEngine"]
