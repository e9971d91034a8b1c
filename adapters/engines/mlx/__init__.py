"""The MLX engine: adapters as slots of one model that stays in memory."""

from adapters.engines.mlx.config import MlxConfig
from adapters.engines.mlx.engine import MlxEngine

__all__ = ["MlxConfig", "MlxEngine"]
