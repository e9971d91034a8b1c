"""A run's folder: what was run (manifest.json), and a line for each question (records.jsonl)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kiki.errors import EvaluationError
from kiki.names import near

MANIFEST, RECORDS, LOCK = "manifest.json", "records.jsonl", ".lock"
GROWING = "benchmarks"  # a later run may add one

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Records are appended whole and synced: a kill loses the questions in work, no others."""

    path: Path

    @classmethod
    def create(cls, path: Path, manifest: Mapping[str, Any]) -> RunFolder:
        """Open the run at ``path``, or begin one there.

        Raises EvaluationError where the folder holds a run of something else, with what differs,
        or another process is at it.
        """
        path.mkdir(parents=True, exist_ok=True)
        file = path / MANIFEST
        if file.is_file():
            held = json.loads(file.read_text(encoding="utf-8"))
            different = differences(held, manifest)
            if different:
                raise EvaluationError(
                    f"{path} holds another run:\n  " + "\n  ".join(different),
                    fix="Give the same settings, or another folder with --out.",
                )
            grown = dict(held[GROWING]) | dict(manifest[GROWING])
            manifest = dict(held) | {GROWING: grown}
        elif any(child.name != LOCK for child in path.iterdir()):
            raise EvaluationError(f"{path} holds other files.", fix="Give a new folder with --out.")
        _write_whole(file, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Raises EvaluationError where there is no run."""
        if not (path / MANIFEST).is_file():
            raise EvaluationError(f"{path} holds no run.", fix="Name the folder given to --out.")
        return cls(path)

    def lock(self) -> FileLock:
        """Held while a process appends. Raises EvaluationError where another one holds it."""
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise EvaluationError(
                f"Another process is running {self.path}.", fix="Wait for it, or stop it."
            ) from None
        return lock

    @property
    def manifest(self) -> dict[str, Any]:
        held: dict[str, Any] = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
        return held

    def records(self) -> list[Record]:
        """All whole records, in the order they were made; of one id the last."""
        found = {record["id"]: record for record in self._read()}
        return list(found.values())

    def record(self, id: str) -> Record:
        """Raises EvaluationError, which lists the near ids."""
        found = {record["id"]: record for record in self._read()}
        if id not in found:
            raise EvaluationError(f"{self.path} has no question {id!r}.{near(id, found)}")
        return found[id]

    def append(self, record: Record) -> None:
        """Durable when it returns."""
        line = json.dumps(record, ensure_ascii=False) + "\n"
        with (self.path / RECORDS).open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def mend(self) -> None:
        """Cut off a line that a kill left torn."""
        file = self.path / RECORDS
        if file.is_file():
            data = file.read_bytes()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                os.truncate(file, whole)

    def _read(self) -> Iterator[Record]:
        file = self.path / RECORDS
        if not file.is_file():
            return
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)


def differences(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Each setting in which two manifests differ, in words."""
    ours, theirs = dict(_flat(held)), dict(_flat(wanted))
    known = held.get(GROWING, {})
    return [
        f"{name}: {ours.get(name, 'not set')!r} there, {theirs.get(name, 'not set')!r} here"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name) and not _may_differ(name, known, theirs)
    ]


def _may_differ(name: str, known: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """A benchmark that only one of the two has."""
    group, _, rest = name.partition(".")
    return group == GROWING and (rest.partition(".")[0] not in known or name not in theirs)


def _flat(manifest: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in manifest.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _write_whole(path: Path, text: str) -> None:
    made = path.with_suffix(".part")
    made.write_text(text, encoding="utf-8")
    made.replace(path)
