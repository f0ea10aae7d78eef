#!/usr/bin/env bash
# OpenTelemetry's default buckets are for milliseconds: of a duration in seconds the p99 is always 4.95.
#
# Its conventions say that durations are in seconds. The boundaries of a histogram that sets none are 0, 5, 10, 25 and
# so on to 10000, whatever its unit. A model that answers in 10 to 40 ms has all its calls in the bucket
# from 0 to 5 s; histogram_quantile() interpolates in there, so that p50 is 2.5 s and p99 4.95 s, on each dashboard and
# before and after each change, until a call takes more than five seconds. The sum and the mean are right.
# The guess that misses: a histogram with unit "s" has boundaries for seconds, as Prometheus' own client's are from
# 0.005 to 10. explicit_bucket_boundaries_advisory=[...] (advice.explicitBucketBoundaries in JavaScript), or a
# view with an exponential histogram.
#
# Versions: PyPI opentelemetry-sdk 1.45.2, npm @opentelemetry/sdk-metrics 3.1.1.
# Seen: 100 calls of 10 to 40 ms in the bucket up to 5, p99 4.95 s in both; 0.05 with boundaries given.
# Needs: python3 with venv, node 20 or newer, npm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: opentelemetry-sdk==1.45.2
npm install --silent --no-fund --no-audit @opentelemetry/sdk-metrics@3.1.1 @opentelemetry/api@1.10.0 >/dev/null

cat >try.py <<'PY'
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader


def quantile(q, bounds, counts):
    """As Prometheus' histogram_quantile() does: linear within the bucket that holds the rank."""
    rank, below = q * sum(counts), 0
    for n, count in enumerate(counts):
        if below + count >= rank and count:
            low = bounds[n - 1] if n else 0
            return low + (bounds[n] - low) * (rank - below) / count
        below += count


def p99(**options):
    reader = InMemoryMetricReader()
    meter = MeterProvider(metric_readers=[reader]).get_meter("texts")
    seconds = meter.create_histogram("embed.duration", unit="s", **options)
    for n in range(100):
        seconds.record(0.01 + n * 0.0003)
    point = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics[0].data.data_points[0]
    found = quantile(0.99, point.explicit_bounds, point.bucket_counts)
    print("Python", options, "longest", round(point.max, 4), "p99", round(found, 3))
    return found


assert abs(p99() - 4.95) < 1e-6
assert p99(explicit_bucket_boundaries_advisory=[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]) < 0.051
PY
venv/bin/python try.py

cat >try.mjs <<'JS'
import assert from "node:assert";
import { AggregationTemporality, InMemoryMetricExporter, MeterProvider, PeriodicExportingMetricReader }
  from "@opentelemetry/sdk-metrics";

const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 60000 });
const provider = new MeterProvider({ readers: [reader] });
const seconds = provider.getMeter("texts").createHistogram("embed.duration", { unit: "s" });
for (let n = 0; n < 100; n++) seconds.record(0.01 + n * 0.0003);
await reader.forceFlush();
const { buckets } = exporter.getMetrics()[0].scopeMetrics[0].metrics[0].dataPoints[0].value;
const first = buckets.counts.findIndex((count) => count === 100);
console.log("JavaScript: all between", buckets.boundaries[first - 1], "and", buckets.boundaries[first]);
assert.deepEqual([buckets.boundaries[first - 1], buckets.boundaries[first]], [0, 5]);
await provider.shutdown();
JS
node try.mjs
echo "as described"
