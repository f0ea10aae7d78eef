"""An engine of peer.py behind FastAPI, as scripts/bench-serve-peers asks it: POST /v1/embeddings
with the token ids of one text.

    python -m bench_peers.server ENGINE FOLDER THREADS SETTING PORT

What waits is computed together, up to SIZE texts, padded to the longest: one thread computes, the
loop of asyncio goes on. Answers are base64, which costs least.
"""

import asyncio
import base64
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import uvicorn
from fastapi import FastAPI, Request

from .peer import ENGINES

SIZE = 16


def compute(run, rows):
    """Vectors [n][dim] of lists of ids."""
    length = max(len(row) for row in rows)
    ids = np.zeros((len(rows), length), dtype=np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, :len(row)] = row
        mask[i, :len(row)] = 1
    return run(ids, mask)


def make_app(run):
    app, waiting = FastAPI(), []
    thread, lock = ThreadPoolExecutor(1), asyncio.Lock()

    async def compute_some():
        """Of those that wait, the first, and as many of the next as fit."""
        async with lock:
            if not waiting:
                return
            taken = waiting[:SIZE]
            del waiting[:SIZE]
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(thread, compute, run, [ids for ids, _ in taken])
            for (_, done), vector in zip(taken, found):
                done.set_result(vector)

    @app.post("/v1/embeddings")
    async def embeddings(request: Request):
        ids = (await request.json())["input"]
        done = asyncio.get_running_loop().create_future()
        waiting.append((ids, done))
        while not done.done():
            await compute_some()
        vector = base64.b64encode(done.result().astype("<f4").tobytes()).decode()
        return {"object": "list", "data": [{"object": "embedding", "index": 0,
                                            "embedding": vector}],
                "usage": {"prompt_tokens": len(ids), "total_tokens": len(ids)}}

    return app


def main():
    engine, folder, threads, setting, port = sys.argv[1:]
    run = ENGINES[engine](Path(folder), setting, int(threads))
    uvicorn.run(make_app(run), host="127.0.0.1", port=int(port), log_level="warning",
                access_log=False)


if __name__ == "__main__":
    main()
