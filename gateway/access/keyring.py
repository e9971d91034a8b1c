"""The keys in force: those of the environment and of a file that may change at any time."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from gateway.access.key_file import read_keys
from gateway.access.keys import NOBODY, Key, key_in, name_in
from gateway.access.origin import is_loopback
from gateway.settings import Settings
from kiki.errors import AccessError, SettingsError

log = logging.getLogger("kiki.keys")

RECHECK_S = 0.2
_HOW = "Send it as: Authorization: Bearer KEY. The operator makes one with: kiki keys create NAME"
_Signature = tuple[int, int, int, int]


class Keyring:
    """Finds the key of a request. The file is read again when it changed; a broken one leaves the
    keys as they were. Once there was a key, callers need one for as long as the process lives."""

    def __init__(self, file: Path, given: Iterable[Key] = (), *, recheck_s: float = 0.0) -> None:
        """The file is looked at every ``recheck_s`` seconds, if asked. Raises SettingsError for one
        that can't be read."""
        self._file = file
        self._recheck_s = recheck_s
        self._checked = time.monotonic()
        self._given = {key.name: key for key in given}
        self._signature = _signature(file)
        self._keys = read_keys(file) | self._given
        self._required = self._signature is not None or bool(self._given)

    @classmethod
    def of(cls, settings: Settings) -> Keyring:
        """The keys that the settings name.

        Raises SettingsError for a file or an entry that can't be read, and where a gateway without
        keys is to listen to other machines.
        """
        keyring = cls(settings.keys_path, map(key_in, settings.api_keys), recheck_s=RECHECK_S)
        if not (keyring.required() or settings.allow_remote or is_loopback(settings.host)):
            raise SettingsError(
                f"host = {settings.host!r} is not a loopback address, and there are no API keys.",
                fix="Make one with kiki keys create NAME; or use 127.0.0.1; or set "
                "allow_remote = true behind a proxy that checks who calls.",
            )
        return keyring

    def required(self) -> bool:
        """Whether callers need a key."""
        self._refresh()
        return self._required

    @property
    def valid(self) -> int:
        """How many keys open something now."""
        now = datetime.now(UTC)
        return sum(key.ended(now) is None for key in self._keys.values())

    def find(self, secret: str | None) -> Key:
        """The key that the secret opens. Raises AccessError, which never repeats the secret."""
        self._refresh()
        if not secret:
            raise AccessError("This gateway needs an API key, and the request has none.", fix=_HOW)
        now = datetime.now(UTC)
        key = self._keys.get(name_in(secret), NOBODY)
        if not key.opened_by(secret, now):
            raise AccessError("The API key is not one of this gateway's.", fix=_HOW)
        if reason := key.ended(now):
            raise AccessError(f"The API key {key.name} {reason}.", fix=_HOW)
        return key

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._checked < self._recheck_s:
            return
        self._checked = now
        signature = _signature(self._file)
        if signature == self._signature:
            return
        self._signature = signature
        try:
            self._keys = read_keys(self._file) | self._given
        except SettingsError as error:
            log.error("the keys stay as they were: %s", error)
            return
        self._required = True
        log.info("keys read: %d valid", self.valid)


def _signature(file: Path) -> _Signature | None:
    try:
        status = file.stat()
    except OSError:
        return None
    # ctime: a file that is made readable is a changed one.
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
