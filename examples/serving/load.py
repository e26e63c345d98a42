"""A load test: the server in processes of their own, with batches and without, and clients that speak HTTP to it."""

from __future__ import annotations

import asyncio
import io
import itertools
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from lth_sparse.system.errors import InputError
from lth_sparse.system.messages import aligned

TURNS = 4
HEADS = ("batches", "answers a second", "p50 ms", "p95 ms", "p99 ms", "mean batch", "429", "errors")
SAYS_WHERE = " answers on "


def load_test(script: Path, arguments: Sequence[str], batch_size: int, clients: int, seconds: float) -> int:
    """Times the server with batches of at most `batch_size`, and of one, in turns of `seconds` in all for each.

    `script`: the server; `arguments`: its ticket and its options but --port and --batch-size. Prints a table, and gives
    the exit status: 0 if both servers ended well. Raises InputError where one did not start, having said why itself.
    """
    sizes = {f"up to {batch_size}": batch_size, "one by one": 1}
    with ExitStack() as stack:
        command = [sys.executable, str(script), *arguments, "--port=0"]
        servers = [stack.enter_context(_running([*command, f"--batch-size={size}"])) for size in sizes.values()]
        loads = [Load(_address(server)) for server in servers]
        for load in loads * TURNS:
            asyncio.run(load.add(clients, seconds / TURNS))
        rows = [HEADS, *([name, *load.row()] for name, load in zip(sizes, loads, strict=True))]
    print(f"{clients} clients on this machine, {seconds:g} seconds for each row, in {TURNS} turns")
    print("\n".join(aligned(rows)))
    return 0 if all(server.returncode == 0 for server in servers) else 1


@contextmanager
def _running(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server
        finally:
            server.terminate()


def _address(server: subprocess.Popen[str]) -> str:
    for line in server.stdout or ():
        if SAYS_WHERE in line:
            return line.split(SAYS_WHERE)[1].split(";")[0]
    raise InputError("the server did not start")


class Load:
    """What the clients of one server saw."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.seconds = 0.0
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []

    async def add(self, clients: int, seconds: float) -> None:
        """So many clients send images for so long, each the next one when the last one is answered."""
        images = _images(httpx.get(f"{self.url}/health").json()["input_shape"])
        began = time.perf_counter()
        await asyncio.gather(*(self._send(images, began + seconds) for _ in range(clients)))
        self.seconds += time.perf_counter() - began

    async def _send(self, images: Sequence[bytes], until: float) -> None:
        # A connection of its own for each client: one pool of many takes httpx longer than the server takes to answer.
        # Without certificates, which take long to load, and which http does not ask for.
        async with httpx.AsyncClient(base_url=self.url, timeout=60, verify=False) as client:
            for image in itertools.cycle(images):
                began = time.perf_counter()
                if began >= until:
                    return
                try:
                    status = (await client.post("/predict", content=image)).status_code
                except httpx.HTTPError:
                    status = 0
                self.statuses[status] += 1
                if status == 200:
                    self.latencies.append(1000 * (time.perf_counter() - began))

    def row(self) -> list[str]:
        """Its row of the table, without its name."""
        answered, refused = self.statuses[200], self.statuses[429]
        percentiles = np.percentile(self.latencies, [50, 95, 99]) if self.latencies else [float("nan")] * 3
        mean = httpx.get(f"{self.url}/metrics").json()["mean_batch"] or float("nan")
        errors = self.statuses.total() - answered - refused
        times = [f"{each:.1f}" for each in percentiles]
        return [f"{answered / self.seconds:,.0f}", *times, f"{mean:.1f}", str(refused), str(errors)]


def _images(input_shape: Sequence[int]) -> list[bytes]:
    """Sixteen PNG files of noise."""
    channels, height, width = input_shape
    random = np.random.default_rng(0)
    files = [io.BytesIO() for _ in range(16)]
    for file in files:
        pixels = random.integers(0, 256, (height, width, channels), np.uint8)
        Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels).save(file, "PNG")
    return [file.getvalue() for file in files]
