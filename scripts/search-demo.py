#!/usr/bin/env python3
"""Send texts through Redis and the worker, and search in the embeddings that come out.

The second half of scripts/quickstart, which installs and builds what this needs. Starts a private
redis-server and one worker, and stops both at the end, also after Ctrl-C.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgpack
import numpy as np
import redis

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "live"))
from ports import free_port # noqa: E402 (its folder had to be named first)

IN, OUT, GROUP = "texts", "embeddings", "quickstart"
DEFAULT_QUERIES = [
    "a program to edit photos",
    "play music from the command line",
    "find out which process makes my disk busy",
]
START_SECONDS = 30
STALL_SECONDS = 120
STOP_SECONDS = 30
BEST = 3


def say(*words):
    print(*words, flush=True)


class Demo(contextlib.ExitStack):
    """Whatever was started is on the stack and is stopped in reverse order."""

    def start(self, name, command, log):
        with open(log, "wb") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                       start_new_session=True)
        self.callback(stop, name, process)
        return process


def stop(name, process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            say(f"{name} does not stop after {STOP_SECONDS} s and is killed")
            process.kill()
            process.wait()


def fail(message, log=None):
    if log and log.exists():
        tail = log.read_text(errors="replace").splitlines()[-15:] or ["(it said nothing)"]
        message += "\n  " + "\n  ".join(tail)
    sys.exit(f"quickstart: {message}")


def wait_for_redis(client, process, log):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            fail("redis-server ended at once:", log)
        try:
            client.ping()
            return
        except redis.ConnectionError:
            time.sleep(0.02)
    fail(f"redis-server does not answer after {START_SECONDS} s:", log)


def package_descriptions():
    """(name, description) of every package in the lists of apt, long descriptions where known."""
    try:
        dump = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=True,
                              env={**os.environ, "LC_ALL": "C.UTF-8"}).stdout
    except (OSError, subprocess.CalledProcessError) as e:
        fail(f"the list of packages cannot be read ({e}): name a text file with --corpus")
    for stanza in dump.decode("utf-8", "replace").split("\n\n"):
        name, lines = None, []
        inside = False
        for line in stanza.split("\n"):
            if line.startswith("Package: "):
                name = line[9:]
            elif line.startswith(("Description: ", "Description-en: ")):
                inside, lines = True, [line.split(": ", 1)[1]]
            elif inside and line.startswith(" "):
                lines.append(line[1:] if line != " ." else "")
            else:
                inside = False
        if name and lines:
            yield name, "\n".join(lines)


def corpus_of_packages(n):
    """n of them, evenly spread over the alphabet, no text twice."""
    unique = {text: name for name, text in package_descriptions()}
    found = sorted((name, text) for text, name in unique.items())
    if len(found) < min(n, 100):
        fail(f"apt knows only {len(found)} packages: run 'apt-get update', or use --corpus FILE")
    step = max(1.0, len(found) / n)
    return [found[int(i * step)] for i in range(min(n, len(found)))]


def corpus_of_file(path, n):
    texts = []
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            for number, line in enumerate(f, 1):
                line = line.strip()
                if not line or len(texts) == n:
                    continue
                name, text = str(number), line
                if line.startswith("{"):
                    entry = json.loads(line)
                    name, text = str(entry.get("id", number)), entry["text"]
                texts.append((name, text))
    except OSError as e:
        fail(f"{path} cannot be read: {e.strerror}")
    except (ValueError, KeyError) as e:
        fail(f"{path}, line {number}: not a JSON object with \"text\": {e!r}")
    if not texts:
        fail(f"{path} holds no text")
    return texts


def send(client, texts):
    for at in range(0, len(texts), 500):
        with client.pipeline(transaction=False) as pipe:
            for name, text in texts[at:at + 500]:
                pipe.xadd(IN, {"body": json.dumps({"id": name, "text": text})})
            pipe.execute()


class Progress:
    """One line, written over on a terminal; every ten seconds a new one elsewhere."""

    def __init__(self, total):
        self.total = total
        self.start = self.first = None
        self.texts = self.tokens = 0
        self.shown = 0.0

    def add(self, n_tokens):
        now = time.monotonic()
        self.first = self.first or now
        self.texts += 1
        self.tokens += n_tokens

    def show(self, last=False):
        now = time.monotonic()
        terminal = sys.stdout.isatty()
        if not last and now - self.shown < (0.2 if terminal else 10):
            return
        self.shown = now
        seconds = max(now - self.start, 1e-9)
        left = (self.total - self.texts) * seconds / self.texts if self.texts else None
        line = (f"  {self.texts}/{self.total} texts, {self.texts / seconds:.1f} texts/s, "
                f"{self.tokens / seconds:.0f} tokens/s")
        if left is not None and not last:
            line += f", {int(left) // 60}:{int(left) % 60:02} left"
        if terminal:
            print("\r\033[K" + line, end="\n" if last else "", flush=True)
        else:
            say(line)


def take_outputs(client, progress, worker, log):
    """Ids and one matrix of embeddings, as the worker's records arrive on the output stream."""
    ids, rows, at = [], [], "0-0"
    heard = time.monotonic()
    while len(ids) < progress.total:
        found = client.xread({OUT: at}, count=256, block=200)
        for at, fields in (found[0][1] if found else []):
            record = msgpack.unpackb(fields[b"body"])
            row = np.frombuffer(record["embedding"], record["dtype"])
            if row.shape != (record["dim"],):
                fail(f"a record holds {row.shape} values, {record['dim']} were announced")
            ids.append(str(record["id"]))
            rows.append(row)
            progress.add(record["tokens"])
            heard = time.monotonic()
        progress.show()
        if worker.poll() is not None:
            fail(f"the worker ended with exit code {worker.returncode}:", log)
        n_dead = client.xlen(IN + ":dlq")
        if n_dead:
            code = client.xrange(IN + ":dlq", count=1)[0][1]
            fail(f"{n_dead} texts were refused, the first one with {code}")
        if time.monotonic() - heard > STALL_SECONDS:
            fail(f"no embedding for {STALL_SECONDS} s; the worker said:", log)
    progress.show(last=True)
    return ids, np.stack(rows)


def embed_queries(options, queries):
    """One row a query, by the same binary, without a broker."""
    lines = "".join(json.dumps({"id": i, "text": q}) + "\n" for i, q in enumerate(queries))
    run = subprocess.run([options.binary, "embed", "--model", options.model, "--prompt", "query",
                          "--output-format", "json"], input=lines, text=True,
                         capture_output=True, check=False)
    if run.returncode:
        fail(f"embedmill embed ended with exit code {run.returncode}: {run.stderr.strip()}")
    records = [json.loads(line) for line in run.stdout.splitlines()]
    if len(records) != len(queries):
        fail(f"embedmill embed answered {len(records)} of {len(queries)} queries")
    return np.array([record["embedding"] for record in records], np.float32)


def sample_queries(options, texts):
    """For somebody else's corpus: the first words of three of its texts."""
    if not options.corpus:
        return DEFAULT_QUERIES
    some = {texts[len(texts) * i // 3][1] for i in range(3)}
    return sorted(" ".join(text.split()[:10]) for text in some)


def search(options, queries, texts, ids, matrix):
    by_id = dict(texts)
    for query, row in zip(queries, embed_queries(options, queries)):
        scores = matrix @ row # both have length 1: this is the cosine
        say(f'\n"{query}"')
        for i in np.argsort(-scores)[:BEST]:
            text = by_id[ids[i]].split("\n")[0]
            say(f"  {scores[i]:.3f}  {ids[i]}: {text if len(text) < 90 else text[:87] + '...'}")


def run(options, demo):
    texts = (corpus_of_file(options.corpus, options.texts) if options.corpus else
             corpus_of_packages(options.texts))
    folder = Path(tempfile.mkdtemp(prefix="embedmill-quickstart-"))
    if not options.keep:
        demo.callback(shutil.rmtree, folder, ignore_errors=True)

    port = free_port()
    redis_log, worker_log = folder / "redis.log", folder / "worker.log"
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder),
               "--save", "", "--appendonly", "no"]
    server = demo.start("redis-server", command, redis_log)
    client = redis.Redis(port=port)
    wait_for_redis(client, server, redis_log)
    send(client, texts)
    say(f"{len(texts)} texts are on the stream '{IN}' of a Redis on port {port}")

    progress = Progress(len(texts))
    progress.start = time.monotonic()
    worker = demo.start("embedmill", [
        options.binary, "run", "--model", options.model,
        "--source", "redis", "--sink", "redis", "--redis-url", f"redis://127.0.0.1:{port}/0",
        "--redis-stream", IN, "--redis-group", GROUP,
        "--redis-output", "stream", "--redis-output-stream", OUT], worker_log)
    ids, matrix = take_outputs(client, progress, worker, worker_log)
    seconds = time.monotonic() - progress.start
    if sorted(ids) != sorted(name for name, _ in texts):
        fail("the ids that came out are not those that went in")
    stop("embedmill", worker)
    if worker.returncode:
        fail(f"the worker ended with exit code {worker.returncode}:", worker_log)

    say("\nSearches, by cosine:")
    search(options, sample_queries(options, texts) + options.query, texts, ids, matrix)
    say(f"\n{len(ids)} texts and {progress.tokens} tokens in {seconds:.1f} s; the first embedding "
        f"came {progress.first - progress.start:.2f} s after the worker's start.")
    say(f"Each is {matrix.shape[1]} float32 values in a msgpack record: docs/wire-format.md.")
    say("Next, with texts of your own: docs/tutorial.md.")
    if options.keep:
        demo.pop_all() # nothing is stopped any more; the worker already is
        say(f"Redis goes on: redis-cli -p {port} XRANGE {OUT} - + COUNT 1\n"
            f"Stop it by: redis-cli -p {port} SHUTDOWN NOSAVE; rm -r {folder}")


def count(text):
    n = int(text)
    if n < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return n


def main():
    parser = argparse.ArgumentParser(prog="quickstart", description=__doc__.split("\n")[0])
    parser.add_argument("--binary", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--model", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--corpus", metavar="FILE")
    parser.add_argument("--texts", metavar="N", type=count, default=2000)
    parser.add_argument("--query", metavar="TEXT", action="append", default=[])
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    # SIGTERM as Ctrl-C: unwinds the stack, which stops what was started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Demo() as demo:
            run(options, demo)
    except KeyboardInterrupt:
        sys.exit("\nquickstart: stopped")


if __name__ == "__main__":
    main()
