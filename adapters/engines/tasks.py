"""Ending tasks for good."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import anyio


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel the tasks and wait for them.

    The wait is shielded: a caller that is being cancelled again and again (as by an anyio scope)
    would else cut short the tasks' own clean-up, and leave a connection and its slot in use.
    """
    for task in tasks:
        task.cancel()
    with anyio.CancelScope(shield=True):
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()
