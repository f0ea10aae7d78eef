#!/usr/bin/env bash
# OpenTelemetry keeps the last 128 links of a span: of a batch of 512 texts, 384 traces never see their embedding.
#
# A span for a batch of messages has a link to the trace of each, as the conventions for messaging say. The SDKs have
# a limit of 128 links a span, which nobody has to set, and each link beyond it pushes out the oldest. Python logs
# nothing, JavaScript only to those who have set a diagnostic logger; what is sent is a count (dropped_links_count)
# that most back ends do not show. So a text's trace leads to its embedding or not, by its place in the batch, and
# always in tests, where batches are small. The guess that misses: what was linked is sent, or else the first links
# are. OTEL_SPAN_LINK_COUNT_LIMIT (or max_links, linkCountLimit) as large as the largest batch.
#
# Versions: PyPI opentelemetry-sdk 1.45.2, npm @opentelemetry/sdk-trace-base 2.12.1.
# Seen: both keep links 385 to 512 and count 384 dropped; all 512 with a limit of 512.
# Needs: python3 with venv, node 20 or newer, npm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: opentelemetry-sdk==1.45.2
npm install --silent --no-fund --no-audit @opentelemetry/sdk-trace-base@2.12.1 @opentelemetry/api@1.9.1 >/dev/null

cat >try.py <<'PY'
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


def linked(**options):
    exporter = InMemorySpanExporter()
    provider = TracerProvider(**options)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    links = [trace.Link(trace.SpanContext(trace_id=n + 1, span_id=1, is_remote=True,
                                          trace_flags=trace.TraceFlags(1))) for n in range(512)]
    with provider.get_tracer("worker").start_as_current_span("batch", links=links):
        pass
    span = exporter.get_finished_spans()[0]
    return [link.context.trace_id for link in span.links], span.dropped_links


kept, dropped = linked()
print(f"Python keeps {len(kept)} links, {kept[0]} to {kept[-1]}, and drops {dropped}")
assert kept == list(range(385, 513)) and dropped == 384
assert len(linked(span_limits=SpanLimits(max_links=512))[0]) == 512
PY
env -u OTEL_SPAN_LINK_COUNT_LIMIT venv/bin/python try.py

cat >try.mjs <<'JS'
import assert from "node:assert";
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";

async function linked(options) {
  const exporter = new InMemorySpanExporter();
  const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)], ...options });
  const links = Array.from({ length: 512 }, (_, n) => ({ context: {
    traceId: (n + 1).toString(16).padStart(32, "0"), spanId: "0000000000000001", traceFlags: 1 } }));
  provider.getTracer("worker").startSpan("batch", { links }).end();
  await provider.forceFlush();
  const span = exporter.getFinishedSpans()[0];
  return [span.links.map((link) => parseInt(link.context.traceId, 16)), span.droppedLinksCount];
}
const [kept, dropped] = await linked({});
console.log(`JavaScript keeps ${kept.length} links, ${kept[0]} to ${kept.at(-1)}, and counts ${dropped} dropped`);
assert.deepEqual(kept, Array.from({ length: 128 }, (_, n) => n + 385));
assert.equal(dropped, 384);
assert.equal((await linked({ spanLimits: { linkCountLimit: 512 } }))[0].length, 512);
JS
env -u OTEL_SPAN_LINK_COUNT_LIMIT node try.mjs
echo "as described"
