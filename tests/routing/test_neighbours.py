from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kiki.errors import RoutingError
from routing.card import Card
from routing.domains import load_domains
from routing.embedder import Embedder
from routing.neighbours import INDEX_FILE, Neighbours, fingerprint, loaded_once, write
from routing.router import PACKAGED
from routing.training.groups import NEAR
from routing.training.rows import digest, read_packaged, read_shifted

TABLE = load_domains()
CODES_ERROR = 0.005
"""What 8 bits may add to a cosine."""


@pytest.fixture(scope="module")
def neighbours(embedder: Embedder) -> Neighbours:
    return Neighbours.read(PACKAGED, embedding_id=embedder.id)


def test_no_held_out_prompt_has_its_like_among_the_training_prompts(
    neighbours: Neighbours, embedder: Embedder
) -> None:
    held_out = set(Card.read(PACKAGED).held_out)
    rows = [row.prompt for row in read_packaged(TABLE) if fingerprint(row.prompt) in held_out]
    assert rows
    assert likes(neighbours, embedder, rows[::4]) == []


def test_no_shifted_prompt_has_its_like_among_the_training_prompts(
    neighbours: Neighbours, embedder: Embedder
) -> None:
    rows = read_shifted(TABLE)
    if Card.read(PACKAGED).data.get("shifted") != digest(rows):
        pytest.skip("the weights were made before this shifted set: train the router again")
    assert likes(neighbours, embedder, [row.prompt for row in rows]) == []


def likes(neighbours: Neighbours, embedder: Embedder, prompts: list[str]) -> list[str]:
    """The prompts that come near a training prompt."""
    cosines = neighbours.highest(embedder.embed(prompts))
    limit = NEAR + CODES_ERROR
    return [prompt for prompt, cosine in zip(prompts, cosines, strict=True) if cosine >= limit]


def test_the_nearest_prompts_are_training_prompts_with_their_domains(
    neighbours: Neighbours, embedder: Embedder
) -> None:
    vector = embedder.embed(["SQL: how do I join two tables on a key?"])[0]
    near = neighbours.nearest(vector)
    assert len(near) == 5
    assert [one.similarity for one in near] == sorted((n.similarity for n in near), reverse=True)
    assert any("sql" in one.domains for one in near)
    for one in near:
        exact = float(embedder.embed([one.prompt])[0] @ vector)
        assert one.similarity == pytest.approx(exact, abs=CODES_ERROR)


def test_a_prompt_that_left_the_data_is_no_longer_shown(tmp_path: Path) -> None:
    kept = {"prompt": "kept", "domains": ["sql"]}
    (tmp_path / "sql.jsonl").write_text(json.dumps(kept), encoding="utf-8")
    vectors = np.eye(2, 768, dtype=np.float32)
    write(tmp_path, ["gone", "kept"], vectors, embedding_id="here")
    read = Neighbours.read(tmp_path, embedding_id="here", data=tmp_path)
    (near,) = read.nearest(vectors[1])
    assert (near.prompt, near.domains, near.similarity) == ("kept", ("sql",), 1.0)
    with pytest.raises(RoutingError, match="'elsewhere'"):
        Neighbours.read(tmp_path, embedding_id="elsewhere", data=tmp_path)


def test_a_missing_or_damaged_index_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RoutingError, match=INDEX_FILE):
        Neighbours.read(tmp_path, embedding_id="here")
    (tmp_path / INDEX_FILE).write_bytes(b"no tensors")
    with pytest.raises(RoutingError, match=INDEX_FILE):
        Neighbours.read(tmp_path, embedding_id="here")


def test_a_fingerprint_is_64_bits_of_any_text() -> None:
    assert len(fingerprint("")) == len(fingerprint("half a pair: \ud800")) == 16
    assert fingerprint("a") != fingerprint("b")


def test_they_are_read_once_however_many_ask_at_once() -> None:
    reads: list[None] = []
    everyone = threading.Barrier(8)

    def read() -> Neighbours:
        reads.append(None)
        return Neighbours(np.empty((0, 768), np.int8), np.empty(0, np.float32), [])

    loaded = loaded_once(read)

    def ask() -> Neighbours:
        everyone.wait()
        return loaded()

    with ThreadPoolExecutor(8) as pool:
        found = [future.result() for future in [pool.submit(ask) for _ in range(8)]]
    assert len(reads) == 1
    assert all(one is found[0] for one in found)


def test_a_prompt_may_hold_a_unicode_end_of_line(tmp_path: Path) -> None:
    prompt = "first\u2028second\u0085third"
    line = json.dumps({"prompt": prompt, "domains": ["python"]}, ensure_ascii=False)
    (tmp_path / "python.jsonl").write_text(line + "\n", encoding="utf-8")
    vector = np.zeros((1, 768), np.float32)
    vector[0, 0] = 1
    write(tmp_path, [prompt], vector, embedding_id="any")
    neighbours = Neighbours.read(tmp_path, embedding_id="any", data=tmp_path)
    assert [near.prompt for near in neighbours.nearest(vector[0])] == [prompt]
