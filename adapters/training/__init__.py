"""Train a LoRA adapter by its recipe, on question-answer text."""

from adapters.training.chat_folder import read_chat_folder
from adapters.training.corpus import list_domains, read_corpus
from adapters.training.driver import TrainingResult, train_adapter
from adapters.training.job import Job, plan_job
from adapters.training.lock import training_lock
from adapters.training.progress import training_bar

__all__ = [
    "Job",
    "TrainingResult",
    "list_domains",
    "plan_job",
    "read_chat_folder",
    "read_corpus",
    "train_adapter",
    "training_bar",
    "training_lock",
]
