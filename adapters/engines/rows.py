"""Running the rows of a batch side by side, where each row is a request of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from adapters.engines.base import Delta
from adapters.engines.tasks import end_tasks


async def together(rows: Sequence[AsyncGenerator[Delta, None]]) -> AsyncGenerator[Delta, None]:
    """The deltas of all rows as they come; the first row that fails ends them all.

    Rows run on whether their deltas are read or not: a caller who is slow must not keep a slot
    from others. What is unread waits here, at most ``max_tokens`` deltas a row.
    """
    queue: asyncio.Queue[Delta | Exception] = asyncio.Queue()
    tasks = {asyncio.create_task(_pump(row, queue)) for row in rows}
    try:
        unfinished = len(tasks)
        while unfinished:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            yield item
            unfinished -= item.finish_reason is not None
    finally:
        if tasks:
            await end_tasks(tasks)


async def _pump(row: AsyncGenerator[Delta, None], queue: asyncio.Queue[Delta | Exception]) -> None:
    try:
        async with contextlib.aclosing(row) as deltas:
            async for delta in deltas:
                queue.put_nowait(delta)
    except Exception as error:  # whatever it is, it is raised where the batch is read
        queue.put_nowait(error)
