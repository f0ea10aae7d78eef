#!/usr/bin/env python3
"""One record that a real Redis refuses, or that is bad by itself, among a thousand good ones.

For each kind of refusal and each way out (the same server, another database, another server): three
workers, one of them killed every second. A thousand outputs, one dead letter, nobody ends.

Usage: test_redis_poison.py EMBEDMILL [--few] [CASE ...]
"""
import sys
import time

from cases import find_cases, run_cases, slow
from redis_bench import Bench, wait_for

POISON, N = 417, 1000
WAYS = ("same server", "another database", "another server")


class Team:
    """Workers on one stream, the killed ones replaced; who ends by himself is noted."""

    def __init__(self, bench, *extra):
        self.bench, self.extra = bench, extra
        self.workers = [self.start(slot) for slot in range(3)]

    def start(self, slot):
        return self.bench.start_worker(*self.extra, "--batch-texts", "16", "--redis-claim-idle",
                                       "2s", name=f"worker-{slot}")

    def kill(self, slot):
        self.check()
        self.workers[slot].kill()
        self.workers[slot].wait()
        self.workers[slot] = self.start(slot)

    def check(self):
        for slot, worker in enumerate(self.workers):
            code = worker.poll()
            assert code is None, f"exit code {code}\n{self.bench.log(f'worker-{slot}')[-2000:]}"

    def stop(self):
        self.check()
        for worker in self.workers:
            self.bench.stop(worker)


def run(bench, other, way, poison, *extra, user="", prepare=None):
    """(fields of the only dead letter, keys of all outputs)"""
    bench.start_server()
    out = bench.client
    if way == "another database":
        out = type(out)(port=bench.port, db=1)
    elif way == "another server":
        other.start_server()
        out = other.client
    port = other.port if way == "another server" else bench.port
    db = 1 if way == "another database" else 0
    for server in {bench.port: bench.client, other.port: other.client}.values():
        if user and (server is bench.client or way == "another server"):
            server.execute_command("ACL", "SETUSER", "w", "on", ">pw", "+@all", *user.split())
    if prepare:
        prepare(out)
    login = "w:pw@" if user else ""
    for i in range(N):
        bench.client.xadd("texts", {"text": f"text {i % 20}", "id": f"id-{i}"})
        if i == POISON:
            bench.client.xadd("texts", poison)
    team = Team(bench, "--redis-url", f"redis://{login}127.0.0.1:{bench.port}/0",
                "--redis-output-url", f"redis://{login}127.0.0.1:{port}/{db}", *extra)
    for slot in range(3):
        time.sleep(1)
        team.kill(slot)

    def is_done():
        team.check()
        [group] = bench.client.xinfo_groups("texts")
        return group["pending"] == 0 and group["lag"] == 0
    wait_for("all acked", is_done, 120)
    team.stop()
    letters = [fields for _, fields in out.xrange("texts:dlq")]
    assert letters and (len(letters) == 1 or way != "same server"), letters
    assert len({letter[b"_id"] for letter in letters}) == 1, letters
    return letters[0], out.keys("embedding:*")


def each_way(bench, poison, *extra, code, **more):
    for way in WAYS:
        with Bench(bench.binary) as here, Bench(bench.binary) as other:
            letter, keys = run(here, other, way, poison, *extra, **more)
            assert letter[b"_code"] == code, (way, letter)
            good = [key for key in keys if key.startswith(b"embedding:id-")]
            assert len(good) == N, (way, len(good))
            print(f"        {way}: {len(good)} outputs, {letter[b'_error'].decode()[:90]}",
                  flush=True)
    return letter


@slow
def case_wrong_type(bench):
    """output=hash, and the key of an id holds something else."""
    each_way(bench, {"text": "t", "id": "poison"}, "--redis-output", "hash", code=b"key_wrong_type",
             prepare=lambda out: out.set("embedding:poison", "of another program"))


@slow
def case_missing_right(bench):
    """A user who may write the keys of all ids but one."""
    for output in ("hash", "key"):
        each_way(bench, {"text": "t", "id": "poison"}, "--redis-output", output,
                 code=b"key_not_allowed", user="resetkeys ~texts* ~embedding:id-*")


def case_too_large(bench):
    """A field that the server of the output does not take as large as it is."""
    def limit(out):
        out.config_set("proto-max-bulk-len", 1 << 20)
    wide = {"text": "t", "id": "poison", "wide": "w" * (3 << 20)}
    with Bench(bench.binary) as here, Bench(bench.binary) as other:
        letter, keys = run(here, other, "another server", wide, "--redis-output", "hash",
                           prepare=limit)
        assert letter[b"_code"] == b"output_too_large" and b"wide" not in letter, letter
        assert letter[b"text"] == b"t" and b"0 of" not in letter[b"_error"], letter
        assert len(keys) == N, len(keys)


def case_bad_message(bench):
    """And what is wrong with the message itself."""
    each_way(bench, {"body": b"\x81", "id": "poison"}, "--redis-output", "hash",
             code=b"bad_msgpack")


def case_nothing_allowed(bench):
    """No right to any output key is everybody's fault: the worker ends, nothing goes aside."""
    bench.start_server()
    bench.client.execute_command("ACL", "SETUSER", "w", "on", ">pw", "+@all", "resetkeys",
                                 "~texts*")
    bench.add(0, 200)
    worker = bench.start_worker("--redis-url", f"redis://w:pw@127.0.0.1:{bench.port}",
                                "--redis-output", "hash")
    assert worker.wait(timeout=30) == 69 and "ACL SETUSER" in bench.log(), bench.log()
    assert bench.client.xlen("texts:dlq") == 0
    bench.client.execute_command("ACL", "SETUSER", "w", "~embedding:*")
    worker = bench.start_worker("--redis-url", f"redis://w:pw@127.0.0.1:{bench.port}",
                                "--redis-output", "hash")
    wait_for("200 outputs", lambda: len(bench.client.keys("embedding:*")) == 200)
    bench.stop(worker)


def main():
    binary, only = sys.argv[1], sys.argv[2:]
    return run_cases(find_cases(globals()), only, lambda name: Bench(binary))


if __name__ == "__main__":
    sys.exit(main())
