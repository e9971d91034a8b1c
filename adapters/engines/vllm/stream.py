"""Numbers on their way to a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Stream:
    """Arrays written one after the other from byte ``start`` of an open file.

    They are gathered in one buffer of ``room`` bytes, or of the largest array's: small enough for
    the processor's cache, and a fresh page of memory is taken only for the file itself.
    """

    def __init__(self, file: int, start: int, room: int) -> None:
        import numpy as np

        self._file = file
        self._start = start
        self._buffer = np.empty(room, np.uint8)
        self._used = 0

    def take(self, shape: Sequence[int], dtype: str) -> NDArray[Any]:
        """The next array, to be filled before the next call; what it holds now is anything."""
        import numpy as np

        size = prod(shape) * np.dtype(dtype).itemsize
        if self._used + size > self._buffer.size:
            self.flush()
        if size > self._buffer.size:
            self._buffer = np.empty(size, np.uint8)
        view = self._buffer[self._used : self._used + size]
        self._used += size
        return view.view(dtype).reshape(shape)

    def flush(self) -> None:
        """Write what was taken. Raises OSError."""
        left = self._buffer[: self._used].data
        while left:
            count = os.pwrite(self._file, left, self._start)
            left, self._start = left[count:], self._start + count
        self._used = 0
