"""The HTTP side: what is asked, what is answered, what is refused, and what is counted."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from starlette.requests import ClientDisconnect

import lth_sparse as lth
from serving.batcher import Batcher, Full
from serving.classifier import Classifier

LARGEST_BODY = 10 * 2**20
UPLOAD_SECONDS = 10.0
"""A request that has not arrived by then is refused, so that it cannot keep the server from stopping."""


def application(classifier: Classifier, batcher: Batcher) -> FastAPI:
    """The HTTP side: what is asked, what is answered, and what is counted."""
    counts: Counter[str] = Counter()
    latencies: deque[float] = deque(maxlen=1000)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with batcher.running():
            yield

    serving = FastAPI(title=f"A ticket of {classifier.network.name}", version=lth.__version__, lifespan=lifespan)

    async def probabilities(request: Request) -> list[float]:
        try:
            batcher.check_room()  # Before the work of reading and decoding, and again when the image is to wait.
            body = await asyncio.wait_for(body_of(request), UPLOAD_SECONDS)
            return await batcher.answer(await asyncio.to_thread(classifier.decoded, body))
        except Full as error:
            raise HTTPException(429, "too many images wait; try again", {"Retry-After": "1"}) from error
        except asyncio.TimeoutError as error:
            slow = f"the image had not arrived after {UPLOAD_SECONDS:g} seconds"
            raise HTTPException(408, slow, {"Connection": "close"}) from error
        except ClientDisconnect as error:
            raise HTTPException(400, "the client has gone") from error  # For the counts: nobody hears it.
        except HTTPException:
            raise
        except Exception as error:
            raise HTTPException(500, f"the network failed: {' '.join(str(error).split())}") from error

    raw = {"requestBody": {"required": True, "content": {"image/*": {"schema": {"format": "binary"}}}}}

    @serving.post("/predict", openapi_extra=raw)
    async def predict(request: Request) -> dict[str, Any]:
        """The class of the image that is the body."""
        began = time.perf_counter()
        try:
            found = await probabilities(request)
        except HTTPException as error:
            counts["refused" if error.status_code == 429 else "failed"] += 1
            raise
        counts["answered"] += 1
        latencies.append(1000 * (time.perf_counter() - began))
        best = max(range(len(found)), key=found.__getitem__)
        name = None if classifier.classes is None else classifier.classes[best]
        return {"class": best, "name": name, "probabilities": found}

    @serving.get("/health")
    async def health() -> dict[str, Any]:
        """What is served."""
        network = classifier.network
        return {"status": "ok", "network": network.name, "input_shape": network.input_shape, "classes": network.classes}

    @serving.get("/metrics")
    async def metrics() -> dict[str, Any]:
        """Requests since the start; latencies are those of the last 1,000 answers, in the server."""
        p50, p95 = np.percentile(latencies, [50, 95]).tolist() if latencies else (None, None)
        mean = batcher.images / batcher.batches if batcher.batches else None
        return {
            **{name: counts[name] for name in ("answered", "refused", "failed")},
            "unanswered": batcher.unanswered,
            "mean_batch": mean,
            "p50_ms": p50,
            "p95_ms": p95,
        }

    return serving


async def body_of(request: Request) -> bytes:
    """The body of the request. Raises HTTPException for a large one, before it is read where its size is told."""
    too_large = HTTPException(413, f"the image is larger than {LARGEST_BODY:,} bytes")
    if int(request.headers.get("content-length", 0)) > LARGEST_BODY:
        raise too_large
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise too_large
    return bytes(body)
