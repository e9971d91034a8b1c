"""One process owns the memory; the others ask it over a Unix socket.

A call is a pickled message of ``multiprocessing.connection``, which both sides authenticate with
a key that only the parent and its workers know. Callables stay with their process: the owner puts
its own in their place.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener
from typing import Any, NoReturn

from kiki.errors import KikiError, StoreError, StoreUnavailableError
from memory import Aeon

log = logging.getLogger("kiki.gateway")

PARTS = frozenset({"knowledge", "rights", "responses"})
"""Attributes of Aeon whose methods can be called."""
BACKLOG = 64
ANSWER_S = 30.0
"""An owner that says nothing for so long is away, though its process may live."""
UNHURRIED = frozenset({"knowledge.sleep"})


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """Where the memory's owner listens. ``key`` is known to the parent's processes alone."""

    address: str
    key: bytes = field(repr=False)
    owner: bool

    def remote(self) -> RemoteAeon:
        return RemoteAeon(self.address, self.key)


Own = Mapping[str, Mapping[str, object]]
"""By method, as "recall" or "knowledge.sleep": arguments that the owner has to put in."""


@contextmanager
def served(aeon: Aeon, shared: SharedMemory, own: Own) -> Iterator[None]:
    """While it is entered, other workers can use the memory. A thread serves each connection."""
    listener = Listener(shared.address, "AF_UNIX", backlog=BACKLOG, authkey=shared.key)
    threading.Thread(target=_accept, args=(listener, aeon, own), daemon=True).start()
    try:
        yield
    finally:
        listener.close()


def _accept(listener: Listener, aeon: Aeon, own: Own) -> None:
    while True:
        try:
            connection = listener.accept()
        except EOFError:  # it left before it said who it is
            continue
        except OSError:  # closed
            return
        except Exception as error:  # a wrong key; the next one may have the right one
            log.warning("a process was refused the memory: %s", error)
            continue
        threading.Thread(target=_serve, args=(connection, aeon, own), daemon=True).start()


def _serve(connection: Connection, aeon: Aeon, own: Own) -> None:
    with connection, suppress(EOFError, OSError):
        while True:
            method, args, kwargs = connection.recv()
            try:
                answer: tuple[bool, Any] = (True, _call(aeon, method, args, kwargs, own))
            except KikiError as error:
                answer = (False, error)
            except Exception as error:  # the boundary of the process
                log.exception("the memory failed on %s", method)
                answer = (False, StoreError(f"The memory failed: {error!r}."))
            connection.send(answer)


def _call(
    aeon: Aeon, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], own: Own
) -> object:
    part, _, name = method.rpartition(".")
    target: object = getattr(aeon, part) if part else aeon
    answer = getattr(target, name)(*args, **kwargs, **own.get(method, {}))
    return list(answer) if isinstance(answer, Iterator) else answer


class RemoteAeon:
    """Aeon's methods, and those of its parts, called in the process that owns it.

    Raises what Aeon raises, and StoreUnavailableError while the owner is away: a turn then goes
    on without memory, as it does when a store is down. A connection a thread.
    """

    def __init__(self, address: str, key: bytes, part: str = "") -> None:
        self._address = address
        self._key = key
        self._part = part
        self._thread = threading.local()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        method = f"{self._part}.{name}" if self._part else name
        if not self._part and name in PARTS:
            made: object = RemoteAeon(self._address, self._key, name)
        else:
            made = _Method(self, method)
        # The next time it is found without a call.
        self.__dict__[name] = made
        return made

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        sent = {name: value for name, value in kwargs.items() if not callable(value)}
        for last_try in (False, True):
            kept = getattr(self._thread, "connection", None)
            try:
                if kept is None:
                    self._thread.connection = Client(self._address, "AF_UNIX", authkey=self._key)
                self._thread.connection.send((method, args, sent))
                if method not in UNHURRIED and not self._thread.connection.poll(ANSWER_S):
                    self._thread.connection.close()
                    raise TimeoutError(f"no answer in {ANSWER_S:.0f} s")
                done, answer = self._thread.connection.recv()
            except (EOFError, OSError) as error:
                self._thread.connection = None
                # A kept connection breaks when the owner is started again.
                if kept is None or last_try or isinstance(error, TimeoutError):
                    self._away(error)
            else:
                if not done:
                    raise answer
                return answer
        raise AssertionError("the loop returns or raises")

    def _away(self, error: Exception) -> NoReturn:
        raise StoreUnavailableError(
            "The process that owns the memory doesn't answer.",
            fix="It is started again by itself; try again shortly.",
        ) from error


@dataclass(frozen=True, slots=True)
class _Method:
    remote: RemoteAeon
    name: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.remote.call(self.name, args, kwargs)


def own_arguments(
    count_tokens: Callable[[str], int], ask: object, stopping: Callable[[], bool]
) -> Own:
    """What the owner puts in where callers gave callables of their own."""
    return {
        "recall": {"count_tokens": count_tokens},
        "knowledge.sleep": {"ask": ask, "stopping": stopping},
    }
