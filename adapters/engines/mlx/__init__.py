"""The MLX engine: adapters as slots of one model that stays in memory."""
