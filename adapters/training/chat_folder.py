"""Training text of one's own: a folder with train.jsonl, valid.jsonl and test.jsonl of chats."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from adapters.training.corpus import Corpus, Message, Row
from kiki.errors import AdapterError

ROLES = ("system", "user", "assistant")
_FORM = 'Each line is {"messages": [{"role": "user", "content": "..."}, ...]}.'


def read_chat_folder(folder: Path, domain: str) -> Corpus:
    """The chats in ``folder``: train.jsonl is learnt; test.jsonl, or else valid.jsonl, measures.

    The last message of each chat is the assistant's and is what is learnt; the one before is the
    user's. Raises AdapterError for a missing file or a wrong line.
    """
    tests = [folder / name for name in ("test.jsonl", "valid.jsonl")]
    held_out = next((path for path in tests if path.is_file()), None)
    training = folder / "train.jsonl"
    if held_out is None or not training.is_file():
        raise AdapterError(
            f"{folder} lacks train.jsonl, or both of test.jsonl and valid.jsonl.", fix=_FORM
        )
    digest = sha256(training.read_bytes() + held_out.read_bytes()).hexdigest()
    return Corpus(domain, folder, _read(training), _read(held_out), digest)


def _read(path: Path) -> tuple[Row, ...]:
    rows = tuple(
        _row(line, f"{path} line {number}", path)
        for number, line in enumerate(path.read_bytes().splitlines(), start=1)
        if line.strip()
    )
    if not rows:
        raise AdapterError(f"{path} is empty.", fix=_FORM)
    return rows


def _row(line: bytes, where: str, path: Path) -> Row:
    try:
        entries = json.loads(line)["messages"]
        messages = tuple(Message(entry["role"], entry["content"]) for entry in entries)
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{where} isn't a chat: {error!r}.", fix=_FORM) from error
    for message in messages:
        if message.role not in ROLES or not isinstance(message.content, str):
            raise AdapterError(
                f"{where} has a message of {message.role!r} that isn't text of a known role.",
                fix=f"Roles: {', '.join(ROLES)}.",
            )
    if [message.role for message in messages[-2:]] != ["user", "assistant"]:
        raise AdapterError(f"{where} doesn't end with a user's message and its answer.", fix=_FORM)
    if not messages[-1].content.strip():
        raise AdapterError(f"{where} has an empty answer.", fix="Remove the line.")
    *context, prompt, answer = messages
    return Row(prompt.content, answer.content, path.parent.name, where, tuple(context))
