"""all-mpnet-base-v2 in float32 on torch: by sentence-transformers where it is installed."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routing.embedder import MAX_TOKENS, Embedder
from routing.model_files import TOKENIZER_FILE, WEIGHTS

POSITIONS = 514


def torch_by() -> str:
    """The library that the reference runs on here."""
    installed = importlib.util.find_spec("sentence_transformers")
    return "sentence-transformers" if installed else "transformers"


class TorchMpnet:
    """The reference that routing is compared with.

    Without sentence-transformers it is transformers' model with the same pooling, which does less
    around the model and so is the harder one to beat.

    Args:
        source: the folder of the float32 weights and the tokenizer.
        threads: of torch, as many as the router's.
    """

    def __init__(self, source: Path, *, threads: int) -> None:
        # Threads that wait by spinning take the cores from each other where those are shared.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        import torch
        from transformers import MPNetConfig, MPNetModel, PreTrainedTokenizerFast

        self._threads = torch.get_num_threads()
        torch.set_num_threads(threads)
        tokens = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
        self._tokenizer: Any = PreTrainedTokenizerFast(
            tokenizer_file=str(source / TOKENIZER_FILE), model_max_length=MAX_TOKENS, **tokens
        )
        from safetensors.torch import load_file

        weights = load_file(source / WEIGHTS.file)
        weights.pop("embeddings.position_ids", None)
        self._model: Any = MPNetModel(MPNetConfig(max_position_embeddings=POSITIONS))
        self._model.load_state_dict(weights)
        self._model.eval()
        by_sentences = torch_by() == "sentence-transformers"
        self._sentences = self._sentence_transformer() if by_sentences else None

    def __enter__(self) -> TorchMpnet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import torch

        torch.set_num_threads(self._threads)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), 768), unit rows."""
        import torch

        if self._sentences is not None:
            made: NDArray[np.float32] = self._sentences.encode(
                list(texts), normalize_embeddings=True, show_progress_bar=False
            )
            return made
        batch = self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            return_tensors="pt",
            return_token_type_ids=False,
        )
        with torch.inference_mode():
            hidden = self._model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1)
            vectors: NDArray[np.float32] = torch.nn.functional.normalize(mean).numpy()
        return vectors

    def _sentence_transformer(self) -> Any:
        """From a folder in the form that sentence-transformers reads."""
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.models import Pooling, Transformer

        with tempfile.TemporaryDirectory(prefix="kiki-bench-") as folder:
            self._model.save_pretrained(folder)
            self._tokenizer.save_pretrained(folder)
            words = Transformer(folder, max_seq_length=MAX_TOKENS)
        pooling = Pooling(Embedder.dimension)
        return SentenceTransformer(modules=[words, pooling], device="cpu")
