// Embed three texts through Redis and a worker, and print how near they are to each other.
//
//     npm install && node embed.js [redis://HOST:6379/0] [STREAM]
import { randomUUID } from "node:crypto";
import { decode, encode } from "@msgpack/msgpack";
import { createClient, RESP_TYPES } from "redis";

const [url = "redis://127.0.0.1:6379/0", stream = "texts"] = process.argv.slice(2);
const SECONDS = 30;

// One row for each text. Array.from copies, for the bytes may lie where no Float32Array can begin.
function vectorsOf(output) {
  if (output.v !== 1) throw new Error(`version ${output.v} of the wire format is not known`);
  if (output.dtype !== "<f4") throw new Error(`start the worker with --dtype f4`);
  const bytes = output.embedding;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.length / 4 / output.dim }, (_, row) =>
    Float32Array.from({ length: output.dim }, (_, i) =>
      view.getFloat32(4 * (row * output.dim + i), true)));
}

async function lastId(client, name) {
  const [last] = await client.xRevRange(name, "+", "-", { COUNT: 1 });
  return last ? last.id.toString() : "0-0";
}

async function embed(client, texts, prompt) {
  const [outputs, letters] = [`${stream}:embeddings`, `${stream}:dlq`];
  // Where to read from, before the question is asked: the answer may be quick.
  const after = { [outputs]: await lastId(client, outputs),
                  [letters]: await lastId(client, letters) };
  const call = randomUUID(); // the workers hand every field on, to outputs and dead letters
  const sent = await client.xAdd(stream, "*", {
    "correlation-id": call, body: Buffer.from(encode({ texts, prompt })) });
  const deadline = Date.now() + 1000 * SECONDS;
  try {
    while (Date.now() < deadline) {
      const found = await client.xRead(
        Object.entries(after).map(([key, id]) => ({ key, id })), { COUNT: 100, BLOCK: 500 });
      for (const { name, messages } of found ?? []) {
        for (const { id, message } of messages) {
          after[name] = id.toString();
          if (message["correlation-id"]?.toString() !== call) continue;
          if (name.toString() === letters) throw new Error(`${message._code}: ${message._error}`);
          return vectorsOf(decode(message.body));
        }
      }
    }
    throw new Error(`no answer within ${SECONDS} s: is there a worker on ${stream}?`);
  } finally {
    await client.xDel(stream, sent); // done, or nobody waits for it any more
  }
}

const connection = await createClient({ url }).connect();
// Payloads are bytes: as strings they would be damaged.
const client = connection.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
const texts = ["The ferry leaves at seven.", "When does the boat go?", "Two eggs and some flour."];
try {
  const vectors = await embed(client, texts, "sentence_similarity");
  const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  console.log(vectors.flatMap((a) => vectors.map((b) => dot(a, b).toFixed(4))).join(" "));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  connection.destroy();
}
