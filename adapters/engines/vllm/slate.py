"""The files of composed adapters, written in memory."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from adapters.forms.peft import WEIGHTS_FILE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(eq=False, slots=True)
class Slate:
    """A folder with a file of numbers, of which ``memory`` is a mapping.

    To make and map the pages of a file takes longer than to write them. So a slate is made ahead,
    or taken over from a mix that nobody needs any more. ``adapters`` are those whose mix it bears,
    whatever their weights; it is ``clean`` until a mix was begun on it.
    """

    folder: Path
    memory: NDArray[np.uint8]
    mapping: mmap.mmap
    adapters: str = ""
    clean: bool = True

    @classmethod
    def make(cls, folder: Path, size: int) -> Self:
        """A new folder with a file of ``size`` bytes, which has all its pages.

        Raises OSError where the disk is full: a page that is missing later would end the process.
        """
        import numpy as np

        folder.mkdir(parents=True)
        try:
            with (folder / WEIGHTS_FILE).open("xb+") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.write(bytes(size))
                    file.flush()
                mapping = mmap.mmap(file.fileno(), size)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        memory = np.frombuffer(mapping, np.uint8)
        memory[:: mmap.PAGESIZE] = 0
        return cls(folder, memory, mapping)

    @property
    def bytes(self) -> int:
        """Of the file."""
        return len(self.memory)

    def fits(self, size: int) -> bool:
        """Whether it can become a file of ``size`` bytes.

        One that was used must be of that size: vLLM may have the file of an adapter that it no
        longer knows still mapped, which is harmless while nothing is cut off.
        """
        return self.bytes == size or (self.clean and self.bytes > size)

    def become(self, folder: Path, size: int) -> None:
        """Take another name, and a size that fits."""
        self.folder.rename(folder)
        self.folder = folder
        if size < self.bytes:
            os.truncate(folder / WEIGHTS_FILE, size)
            self.memory = self.memory[:size]

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Let go of the memory; where the folder is gone, of the disk's too."""
        self.memory = self.memory[:0].copy()
        with contextlib.suppress(BufferError):  # the trace of an error may hold a view: it goes too
            self.mapping.close()
