#!/usr/bin/env bash
# OpenTelemetry adds up what comes after 2000 sets of attributes of a metric in one series without their names.
#
# A counter of texts per tenant, collection or API key has a series for each, until there are 2000; those that
# come later are added up in one whose only attribute is otel.metric.overflow=true. The sum over all stays right, so
# totals and alerts look as ever, while each new tenant's count is nothing from the first day on; which tenants are
# in and which are out is decided anew by each restart, by who came first. Nothing is logged. The guess that misses:
# a series for each set of labels, as in Prometheus' clients, or an error when there are too many. A view with another
# limit, fewer attributes, and an alert on otel_metric_overflow.
#
# Versions: PyPI opentelemetry-sdk 1.45.2, npm @opentelemetry/sdk-metrics 3.1.1.
# Seen: of 2500 tenants 2000 series in Python, 1999 in JavaScript, and one without a tenant for the other 500 or 501.
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

reader = InMemoryMetricReader()
texts = MeterProvider(metric_readers=[reader]).get_meter("texts").create_counter("texts")
for n in range(2500):
    texts.add(1, {"tenant": f"tenant {n}"})
points = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
over = [point for point in points if "tenant" not in point.attributes]
print("Python:", len(points), "series;", [(dict(point.attributes), point.value) for point in over])
assert len(over) == 1 and dict(over[0].attributes) == {"otel.metric.overflow": True}
assert over[0].value == 500 and sum(point.value for point in points) == 2500
PY
venv/bin/python try.py

cat >try.mjs <<'JS'
import assert from "node:assert";
import { AggregationTemporality, InMemoryMetricExporter, MeterProvider, PeriodicExportingMetricReader }
  from "@opentelemetry/sdk-metrics";

const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE);
const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 60000 });
const provider = new MeterProvider({ readers: [reader] });
const texts = provider.getMeter("texts").createCounter("texts");
for (let n = 0; n < 2500; n++) texts.add(1, { tenant: `tenant ${n}` });
await reader.forceFlush();
const points = exporter.getMetrics()[0].scopeMetrics[0].metrics[0].dataPoints;
const over = points.filter((point) => !("tenant" in point.attributes));
console.log("JavaScript:", points.length, "series;", over.map((point) => [point.attributes, point.value]));
assert.equal(points.reduce((sum, point) => sum + point.value, 0), 2500);
assert.equal(over.length, 1);
assert.ok(over[0].value >= 500);
assert.deepEqual(over[0].attributes, { "otel.metric.overflow": true });
await provider.shutdown();
JS
node try.mjs
echo "as described"
