#!/usr/bin/env bash
# The decorators of Python's prometheus_client measure nothing of an async function.
#
# @SECONDS.time(), @FAILED.count_exceptions() and @BUSY.track_inprogress() end when the decorated function returns,
# and an async one returns at once, with a coroutine that is awaited later. So each embedding takes a few
# microseconds, none fails, none is in progress; the count is right, which makes the rest believable. Alarms on
# latency and errors never fire, and an autoscaler that follows the work in progress stays at its minimum. No warning,
# neither when decorated nor later. The guess that misses: a decorator for functions refuses what it cannot measure,
# or awaits it, as OpenTelemetry's does. Inside the function: `with SECONDS.time():`, which is right.
#
# Version: PyPI prometheus-client 0.26.0.
# Seen: 1 call of 0.3 s with a sum of some microseconds, 0 exceptions of 1, 0 in progress; 0.3 s by the with block.
# Needs: python3 with venv.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: prometheus-client==0.26.0

cat >try.py <<'PY'
import asyncio

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

SECONDS = Histogram("embed_seconds", "by the decorator")
WITHIN = Histogram("within_seconds", "by the with block")
FAILED = Counter("failed", "of embeddings")
BUSY = Gauge("busy", "embeddings in progress")
busy = []


@SECONDS.time()
@FAILED.count_exceptions()
@BUSY.track_inprogress()
async def embed():
    with WITHIN.time():
        await asyncio.sleep(0.3)
        busy.append(REGISTRY.get_sample_value("busy"))
        raise ValueError("too long")


try:
    asyncio.run(embed())
except ValueError as why:
    print("raised:", why)
values = {name: REGISTRY.get_sample_value(name) for name in (
    "embed_seconds_count", "embed_seconds_sum", "within_seconds_sum", "failed_total")}
print(values, "in progress:", busy)
assert values["embed_seconds_count"] == 1 and values["embed_seconds_sum"] < 0.1
assert values["within_seconds_sum"] >= 0.3
assert values["failed_total"] == 0 and busy == [0]
PY
venv/bin/python -W error try.py
echo "as described"
