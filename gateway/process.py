"""How the process uses its memory."""

from __future__ import annotations

import ctypes
import gc
import sys

M_ARENA_MAX = -8  # malloc.h of glibc


def use_one_arena() -> None:
    """Let all threads of a glibc process share one heap; to be called before threads are started.

    glibc gives threads heaps of their own, whose gaps other threads can't fill: recall's arrays
    of a few hundred kB in turn made 1,500 turns grow the process by 150 MB, and by 5 with one.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(M_ARENA_MAX, 1)


def spare_collector() -> None:
    """Keep the garbage collector away from what the start made, which stays: searching it again
    and again took a third of a request's time. What requests leave is searched whole each
    250,000 objects, some 20 MB."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 5)
