"""Train a LoRA adapter for the base model on question-answer text."""

from adapters.training.corpus import list_domains
from adapters.training.driver import TrainingResult, train_adapter

__all__ = ["TrainingResult", "list_domains", "train_adapter"]
