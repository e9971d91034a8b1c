"""The journal keeps what was acknowledged, once, and says clearly when it can't."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiki.errors import IdempotencyConflictError, RequestError, StoreError, StoreLockedError
from memory import IdempotentReply, Owner
from memory.journal import Journal
from tests.memory.parts import ALICE, episode, unit_vectors


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "memory", embedding_id="seeded")
    yield made
    made.close()


def test_an_episode_comes_back_as_it_was_with_its_vector(journal: Journal) -> None:
    one = episode("Été à Köln\r\n\x00 🦊", "a\x00b", adapters=(("sql", 0.5), ("shell", 1.0)))
    vector = unit_vectors(1)[0]
    assert journal.append(one, vector=vector)
    (row,) = journal.rows_after(0, 9)
    assert row.episode == journal.get(ALICE, [one.id])[one.id] == one
    assert row.vector is not None
    np.testing.assert_allclose(row.vector, vector, atol=1e-3)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_unicode_text_is_kept_faithfully(journal: Journal, text: str) -> None:
    one = episode(text, text[::-1])
    journal.append(one)
    assert journal.get(ALICE, [one.id])[one.id] == one


def test_a_megabyte_is_kept(journal: Journal) -> None:
    one = episode("x" * 1_000_000)
    journal.append(one)
    assert journal.episodes(ALICE, "c1") == [one]


@pytest.mark.parametrize("field", ["user_text", "answer_text", "conversation", "user", "id"])
def test_a_lone_surrogate_is_refused_by_field(field: str) -> None:
    with pytest.raises(RequestError) as refused:
        episode(**{field: "a\ud800"})
    assert refused.value.param == field


def test_the_same_id_is_kept_once(journal: Journal) -> None:
    one = episode("first")
    assert journal.append(one)
    assert not journal.append(one)
    assert journal.count() == 1


def test_a_repeated_key_keeps_the_first_episode_and_reply(journal: Journal) -> None:
    reply = IdempotentReply("key", "print", "{}")
    first = episode()
    assert journal.append(first, idempotency=reply)
    assert not journal.append(episode(), idempotency=IdempotentReply("key", "print", "other"))
    assert journal.find_reply(ALICE, "key") == reply
    assert [row.episode for row in journal.rows_after(0, 10)] == [first]


def test_a_key_used_for_another_request_is_a_conflict_and_keeps_nothing(journal: Journal) -> None:
    journal.append(episode(), idempotency=IdempotentReply("key", "print", "{}"))
    with pytest.raises(IdempotencyConflictError, match="key"):
        journal.append(episode(), idempotency=IdempotentReply("key", "another", "{}"))
    assert journal.count() == 1


def test_two_users_may_use_the_same_key(journal: Journal) -> None:
    journal.append(episode(), idempotency=IdempotentReply("key", "one", "1"))
    assert journal.append(episode(user="bob"), idempotency=IdempotentReply("key", "two", "2"))
    bobs = journal.find_reply(Owner("acme", "bob"), "key")
    assert bobs is not None
    assert bobs.reply == "2"


def test_old_replies_are_forgotten(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.append(episode(), idempotency=IdempotentReply("key", "one", "1"))
    monkeypatch.setattr("memory.reply_log.LIFETIME_S", -1)
    assert journal.find_reply(ALICE, "key") is None
    assert journal.append(episode(), idempotency=IdempotentReply("key", "two", "2"))


def test_a_cursor_of_another_generation_is_not_trusted(journal: Journal) -> None:
    journal.advance("atlas", "first", 7)
    assert journal.cursor("atlas", "first") == 7
    assert journal.cursor("atlas", "second") == 0
    assert journal.cursor("trace", "first") == 0


def test_another_models_vector_is_not_given_out(tmp_path: Path) -> None:
    one = episode()
    first = Journal(tmp_path, embedding_id="old")
    first.append(one, vector=unit_vectors(1)[0])
    first.close()
    second = Journal(tmp_path, embedding_id="new")
    assert second.rows_after(0, 9)[0].vector is None
    second.close()


def test_the_folder_is_private(journal: Journal, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "memory").stat().st_mode) == 0o700


def test_a_second_process_is_refused_with_the_folder_and_the_owner(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from memory.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), embedding_id='seeded')\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(StoreLockedError) as refused:
            Journal(tmp_path, embedding_id="seeded")
        assert str(tmp_path) in str(refused.value)
        assert str(other.pid) in str(refused.value)
        other.stdin.close()
    Journal(tmp_path, embedding_id="seeded").close()


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path, embedding_id="seeded").close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(StoreError, match="format 99"):
        Journal(tmp_path, embedding_id="seeded")


def test_a_file_that_is_no_database_is_refused_and_the_lock_freed(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"not a database" * 100)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"journal\.sqlite is damaged"):
            Journal(tmp_path, embedding_id="seeded")


def test_a_damaged_page_is_named_when_it_is_read(tmp_path: Path) -> None:
    first = Journal(tmp_path, embedding_id="seeded")
    for _ in range(50):
        first.append(episode("word " * 200), vector=unit_vectors(1)[0])
    first.close()
    path = tmp_path / "journal.sqlite"
    size = path.stat().st_size
    intact = size // 2 // 4096 * 4096  # the schema's pages: without them no file opens
    with path.open("r+b") as file:
        file.seek(intact)
        file.write(b"\xff" * (size - intact))
    second = Journal(tmp_path, embedding_id="seeded")
    with pytest.raises(StoreError, match=r"journal\.sqlite is damaged"):
        second.rows_after(0, 100)
    second.close()


def test_a_full_disk_is_named_and_what_was_kept_stays(journal: Journal) -> None:
    one = episode("kept")
    journal.append(one)
    with journal._database.write() as database:
        pages = database.execute("PRAGMA page_count").fetchone()[0]
    journal._database._writer.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StoreError, match="disk is full"):
        journal.append(episode("x" * 100_000))
    assert [row.episode for row in journal.rows_after(0, 10)] == [one]
    journal._database._writer.execute("PRAGMA max_page_count=1000000")
    assert journal.append(episode("after"))
