"""The prompt embedder: all-mpnet-base-v2 on ONNX Runtime, with neither torch nor `onnx`."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routing.batching import Batches
from routing.model_files import MODEL_FILE, TOKENIZER_FILE, check

MAX_TOKENS = 384
"""The length the model was trained for; what follows is cut off."""
MAX_CHARACTERS = 8192
"""Cut before the tokenizer, which bounds its time; 384 tokens of prose are 2,000 characters."""
BATCH_TOKENS = 1024
"""Padded tokens that run at once: more is no faster on a CPU and takes more memory."""
CACHED_TEXTS = 4096
"""About 3 kB each."""
PADDING_ID = 1


class Embedder:
    """Texts to unit vectors, from any thread.

    Args:
        folder: holds the model, its tokenizer and `meta.json`.
        threads: how many cores one call may use.

    Raises:
        AssetError: the folder is missing, incomplete or damaged.
    """

    dimension = 768

    def __init__(self, folder: Path, *, threads: int = 2) -> None:
        from tokenizers import Tokenizer

        self.id = check(folder).embedding_id
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        # A "</s>" that a caller typed is text, not the end of the sequence.
        self._tokenizer.encode_special_tokens = True
        self._counter = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        self._counter.no_padding()
        self._counter.no_truncation()
        self._session = _session(folder / MODEL_FILE, threads)
        self._cache: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()
        self._batches = Batches(self._compute)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embeds the texts: shape (len(texts), 768), each row of unit length.

        Any text will do, the empty one included; of a long one the first 384 tokens count. Texts
        that several threads hand in at once run in the same batch.
        """
        return self.submit(texts).result()

    def submit(self, texts: Sequence[str]) -> Future[NDArray[np.float32]]:
        """`embed`, for callers that wait in their own way; known texts are there at once."""
        cleaned = [_clean(text) for text in texts]
        keys = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in cleaned]
        found = self._recall(keys)
        missing = {key: text for key, text in zip(keys, cleaned, strict=True) if key not in found}
        done: Future[NDArray[np.float32]] = Future()
        if not missing:
            done.set_result(self._stack(keys, found))
            return done

        def finish(made: Future[list[NDArray[np.float32]]]) -> None:
            error = made.exception()
            new = {} if error else dict(zip(missing, made.result(), strict=True))
            self._keep(new)
            if not done.set_running_or_notify_cancel():
                return  # the caller has left
            if error:
                done.set_exception(error)
            else:
                done.set_result(self._stack(keys, found | new))

        self._batches.submit(list(missing.values())).add_done_callback(finish)
        return done

    def _stack(
        self, keys: Sequence[bytes], found: dict[bytes, NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        vectors = np.empty((len(keys), self.dimension), np.float32)
        for row, key in enumerate(keys):
            vectors[row] = found[key]
        return vectors

    def count_tokens(self, text: str) -> int:
        """How many word pieces the text has, none cut off; a fair guess for other models too."""
        return len(self._counter.encode(text, add_special_tokens=False).ids)

    def token_ids(self, text: str) -> list[int]:
        """The word pieces that `embed` reads, by their numbers."""
        ids: list[int] = self._tokenizer.encode(_clean(text)).ids
        return ids

    def _recall(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        with self._lock:
            found = {key: self._cache[key] for key in keys if key in self._cache}
            for key in found:
                self._cache.move_to_end(key)
        return found

    def _keep(self, made: dict[bytes, NDArray[np.float32]]) -> None:
        with self._lock:
            self._cache.update(made)
            while len(self._cache) > CACHED_TEXTS:
                self._cache.popitem(last=False)

    def _compute(self, texts: list[str]) -> list[NDArray[np.float32]]:
        # One by one: `encode_batch` starts a thread pool that doesn't survive a fork.
        sequences = [self._tokenizer.encode(text).ids for text in texts]
        vectors: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(texts)
        for rows in _batches([len(ids) for ids in sequences]):
            lengths = np.array([len(sequences[row]) for row in rows], np.int32)
            ids = np.full((len(rows), int(lengths.max())), PADDING_ID, np.int64)
            for place, row in enumerate(rows):
                ids[place, : lengths[place]] = sequences[row]
            output = self._session.run(["embeddings"], {"input_ids": ids, "lengths": lengths})[0]
            for place, row in enumerate(rows):
                vectors[row] = output[place].copy()
        return vectors


def _clean(text: str) -> str:
    """The part of the text that counts, without the lone surrogates that no UTF-8 can hold."""
    return text.lstrip()[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows of like length together, at most `BATCH_TOKENS` a batch once padded."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if batch and (len(batch) + 1) * lengths[row] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _session(path: Path, threads: int) -> Any:
    """An inference session that is light on memory and leaves the cores alone between calls."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    # Spinning threads take the cores that the engine needs, and are slower on shared ones.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
