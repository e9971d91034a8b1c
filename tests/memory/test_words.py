from __future__ import annotations

import threading

import pytest

from memory.words import MAX_ENTITIES, entities, search_terms

HOSTILE = ["a-", "AB-1", "1", "a", "a.", "/a", "a@", "A a", "'", "x_", "aB", "été "]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_megabyte_of_anything_is_read_within_the_same_bound(piece):
    text = piece * (1_000_000 // len(piece))
    reading = threading.Thread(target=lambda: (entities(text), search_terms(text)), daemon=True)
    reading.start()
    reading.join(20)
    assert not reading.is_alive()


def test_names_begin_with_a_capital_and_accents_make_none():
    assert entities("été à l'école avec Margarethe") == ["margarethe"]
    assert len(entities(" ".join(f"Name{n} is" for n in range(200)))) <= MAX_ENTITIES


def test_paths_mails_identifiers_and_quantities_are_found():
    found = entities("send /etc/fstab and run_it.sh to anna@example.org, 3.3 V at 20 mA")
    assert {"/etc/fstab", "run_it.sh", "anna@example.org", "3.3 v", "20 ma"} <= set(found)
