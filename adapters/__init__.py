"""LoRA adapters: converting, training, and the ones that are shipped."""
