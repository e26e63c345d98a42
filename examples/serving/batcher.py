"""What waits is computed together: a queue, and a thread that takes a batch from it at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any


class Full(Exception):
    """As many images as there may be have no answer yet."""


class Batcher:
    """Images that wait for their answers, and the thread that computes them, several at a time.

    `compute`: what gives an answer for each image of a batch; `size`: images in a batch, at most; `seconds`: how long
    the first one waits for more; `limit`: images without an answer, those that are being computed among them.
    """

    def __init__(self, compute: Callable[[list[Any]], list[Any]], size: int, seconds: float, limit: int) -> None:
        self._compute, self._size, self._seconds, self._limit = compute, size, seconds, limit
        self._waiting: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()
        # One thread, so that OpenMP keeps one team of threads, too.
        self._thread = ThreadPoolExecutor(1)
        self.unanswered = self.batches = self.images = 0

    def check_room(self) -> None:
        """Raises Full where no image can be taken."""
        if self.unanswered >= self._limit:
            raise Full

    async def answer(self, image: Any) -> Any:
        """The answer for one image. Raises Full before the image waits, and what `compute` raised for its batch."""
        self.check_room()
        future = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((image, future))
        self.unanswered += 1
        try:
            return await future
        finally:
            self.unanswered -= 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Inside, images are answered."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            self._thread.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = await self._next_batch()
            self.batches, self.images = self.batches + 1, self.images + len(batch)
            try:
                answers = await loop.run_in_executor(self._thread, self._compute, [image for image, _ in batch])
                for (_, future), answer in zip(batch, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
            except Exception as error:
                logging.getLogger("uvicorn.error").exception("a batch of %d images failed", len(batch))
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)

    async def _next_batch(self) -> list[tuple[Any, asyncio.Future[Any]]]:
        batch = [await self._waiting.get()]
        until = time.monotonic() + self._seconds
        while len(batch) < self._size:
            if self._waiting.empty():
                try:
                    batch.append(await asyncio.wait_for(self._waiting.get(), until - time.monotonic()))
                except asyncio.TimeoutError:
                    break
            else:
                batch.append(self._waiting.get_nowait())
        return batch
