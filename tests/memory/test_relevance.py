"""With the real embedder: the right note comes to a question, and none to an unrelated one.

The floors in `memory.recall` come from these cosines: the right note has 0.43 or more for 13 of
15 questions, and the nearest note is under 0.27 for 14 of 15 unrelated prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from memory import Aeon, Owner, Recollection
from routing.embedder import Embedder
from tests.memory.parts import ALICE, episode, words

ASKED = {
    "What is my dog's name?": "My dog is called Rex and he is a border collie.",
    "Where do I work?": "I work at a bakery in Lyon, from five in the morning.",
    "Which version of the database do we have?": "Our database is PostgreSQL 14 on db-prod-3.",
    "Can I eat this satay sauce?": "I am allergic to peanuts.",
    "C'est quand mon anniversaire ?": "Mon anniversaire est le 14 juillet.",
    "Where does Julia live?": "My sister Julia moved to Lisbon last year.",
    "Which port does the gateway use?": "The API gateway listens on port 8443.",
    "Which programming language do I like?": "I prefer short code examples in Rust.",
    "What pull-up resistors did we choose?": "We use 4.7 kΩ pull-ups on the I2C bus.",
    "Où est-ce que j'habite ?": "J'habite à Grenoble et je fais du ski chaque hiver.",
    "What car do I drive?": "My car is a blue Renault Zoe from 2019.",
    "Where is the deploy script?": "The deploy script lives in /opt/tools/deploy.sh.",
    "What sport event am I preparing for?": "I'm training for a marathon in October.",
    "When is our team meeting?": "Our team meeting is every Tuesday at 10.",
    "What is the subject of my thesis?": "My thesis is about coral reefs.",
}
UNRELATED = [
    "Write a bash loop over all txt files.",
    "What is the capital of Australia?",
    "Explain recursion in Python.",
    "How do I centre a div in CSS?",
    "Raconte-moi une blague.",
    "hello",
    "Thanks!",
    "Translate 'good morning' into Spanish.",
    "How does a diode work?",
    "SELECT the top 10 customers by revenue in SQL.",
    "What's 12 times 17?",
    "Write a haiku about autumn.",
    "How do I reverse a string in C++?",
    "Who wrote Les Misérables?",
    "List files modified in the last day.",
]


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> Iterator[Aeon]:
    folder: Path = tmp_path_factory.mktemp("memory")
    made = Aeon(folder, embedding_id=embedder.id, embed=embedder.embed)
    made.open()
    for number, note in enumerate(ASKED.values()):
        made.write(episode(note, "Noted.", conversation=f"c{number}"), embedder.embed([note])[0])
    assert made.drain(60)
    yield made
    made.close()


def recall(memory: Aeon, embedder: Embedder, text: str, owner: Owner = ALICE) -> Recollection:
    vector = embedder.embed([text])[0]
    return memory.recall(owner, text, vector, budget_tokens=300, count_tokens=words)


def test_a_question_recalls_the_note_that_answers_it(memory: Aeon, embedder: Embedder) -> None:
    found = 0
    for question, note in ASKED.items():
        hits = recall(memory, embedder, question).episodes
        found += bool(hits) and hits[0].episode.user_text == note
    assert found >= 13


def test_few_wrong_notes_come_with_the_right_one(memory: Aeon, embedder: Embedder) -> None:
    notes = [len(recall(memory, embedder, question).episodes) for question in ASKED]
    assert sum(notes) <= 1.5 * len(ASKED)


def test_an_unrelated_prompt_recalls_nothing(memory: Aeon, embedder: Embedder) -> None:
    disturbed = [text for text in UNRELATED if recall(memory, embedder, text).episodes]
    assert len(disturbed) <= 1, disturbed


def test_another_user_recalls_none_of_it(memory: Aeon, embedder: Embedder) -> None:
    stranger = Owner(ALICE.tenant, "bob")
    for question in ASKED:
        assert recall(memory, embedder, question, stranger) == Recollection()
