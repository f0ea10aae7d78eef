#!/usr/bin/env python3
"""redis+cluster:// against a real cluster of six nodes: workers find the node that serves their
slot, follow a failover (its master killed) and a slot that is moved under load, and are killed in
between. Nothing is lost, nothing comes out twice. And a node that speaks TLS only.

Usage: test_redis_cluster_live.py EMBEDMILL [CASE ...]
"""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgpack
import redis

from check_embed import cache_folder
from ports import free_port, free_ports
from redis_bench import has_tls, wait_for
from redis_cluster_bench import (DEAD, GROUP, OUTPUT, PASSWORD, STREAM, ClusterBench, Node)
from test_redis_tls import make_certificates

LOAD = ("--batch-texts", "8")
ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def run_python(*words):
    package = str(ROOT / "scripts" / "client-python")
    done = subprocess.run(["/usr/bin/python3", *words], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": package}, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def outputs(client):
    return [msgpack.unpackb(fields[b"body"])["id"] for _, fields in client.xrange(OUTPUT)]


def add(bench, first, n):
    """By a client that follows the cluster itself; what it says is there is on a replica, too."""
    for i in range(first, first + n):
        bench.cluster.xadd(STREAM, {"text": f"text number {i}", "id": str(i)})


def expect_once(bench, n, seconds=180):
    def is_done():
        node = bench.owner()
        return (node and node.client.xlen(OUTPUT) >= n and
                node.client.xpending(STREAM, GROUP)["pending"] == 0 and
                len(set(outputs(node.client))) >= n)
    wait_for(f"{n} embeddings and nothing pending", is_done, seconds)
    got = outputs(bench.owner().client)
    assert sorted(got, key=int) == [str(i) for i in range(n)], sorted(got, key=int)


def clear(bench):
    """All keys of the slot: hashes have one beside them that says what they were made with."""
    wait_for("an owner", bench.owner)
    node = bench.owner()
    while keys := node.ask("CLUSTER", "GETKEYSINSLOT", bench.slot(), 100):
        node.client.delete(*keys)


def test_names(bench):
    """Keys in several slots are refused before anything else, with the names to use."""
    for words, phrase in (
            (("--redis-stream", "texts"), "redis.stream '{texts}'"),
            (("--redis-stream", "{a},b"), "redis.stream '{a}', and '{a}:b'"),
            (("--redis-stream", STREAM, "--redis-output-stream", "out"),
             "redis.output_stream '{texts}:out'"),
            (("--redis-stream", STREAM, "--redis-dead-letters", "bad"),
             "redis.dead_letters '{texts}:bad'"),
            (("--redis-stream", STREAM, "--redis-output", "hash"),
             "redis.output_prefix '{texts}:embedding:'")):
        run = bench.run_command("check", "--model", bench.model, "--redis-url", bench.url(), *words,
                                check=False)
        text = run.stdout + run.stderr
        assert run.returncode and phrase in text, (words, text)
    good = bench.run_command("check", "--model", bench.model, "--redis-url", bench.url(),
                             "--redis-stream", STREAM, "--redis-output", "hash",
                             "--redis-output-prefix", "{texts}:v:")
    assert "another slot" not in good.stdout, good.stdout


def test_next_node(bench):
    """A node that refuses, one that is silent, one that does not serve the slot: the next."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        seeds = [Node("", free_port(), 0), Node("", silent.getsockname()[1], 0),
                 bench.others(bench.owner())[0]]
        worker = bench.worker(nodes=seeds)
        add(bench, 0, 10)
        expect_once(bench, 10)
        bench.stop(worker)


def test_refused(bench):
    """A wrong password ends it; a server that is in no cluster is said and waited for."""
    url = bench.url().replace("open", "shut")
    worker = bench.start_worker("--redis-url", url, "--redis-stream", STREAM, name="password")
    assert worker.wait(timeout=60) != 0
    assert "WRONGPASS" in bench.log("password"), bench.log("password")
    bench.start_server("--requirepass", PASSWORD, wait=False)
    worker = bench.worker(name="single", nodes=[Node("", bench.port, 0)])
    wait_for("the log", lambda: "not in a cluster" in bench.log("single"))
    bench.stop(worker)
    for name in ("password", "single"):
        assert "sesame" not in bench.log(name)


def test_commands(bench):
    """What a person runs by hand: doctor, push, pull, dlq."""
    url, there = bench.url(), ("--redis-stream", STREAM)
    doctor = bench.run_command("doctor", "--model", bench.model, "--redis-url", url, *there,
                               check=False)
    assert f"serves slot {bench.slot()}" in doctor.stdout, doctor.stdout + doctor.stderr
    assert doctor.returncode == 0, doctor.stdout

    path = os.path.join(bench.folder, "in.jsonl")
    with open(path, "w", encoding="utf-8") as f:
        for i in range(5):
            f.write(json.dumps({"id": str(i), "text": f"text number {i}"}) + "\n")
    bench.run_command("push", path, "--to", url)
    plain = bench.run_command("push", path, "--to", url, "--stream", "plain", check=False)
    assert plain.returncode and "name it '{plain}'" in plain.stderr, plain
    bench.cluster.xadd(STREAM, {"body": b"\x81"})
    assert bench.cluster.xlen(STREAM) == 6
    worker = bench.worker()
    wait_for("outputs", lambda: bench.cluster.xlen(OUTPUT) >= 5)
    wait_for("a dead letter", lambda: bench.cluster.xlen(DEAD) == 1)
    bench.stop(worker)
    listed = bench.run_command("dlq", "list", "--redis-url", url, *there).stdout
    assert "bad_msgpack" in listed, listed
    away = bench.run_command("dlq", "replay", "--redis-url", url, *there, "--to", "elsewhere",
                             check=False)
    assert away.returncode and "another slot" in away.stderr, away
    bench.run_command("dlq", "replay", "--redis-url", url, *there)
    assert bench.cluster.xlen(STREAM) == 7 and bench.cluster.xlen(DEAD) == 0
    bench.cluster.delete(DEAD)
    out = os.path.join(bench.folder, "out.jsonl")
    bench.run_command("pull", "--from", url, "-o", out, "--idle", "1500ms")
    with open(out, encoding="utf-8") as f:
        assert sorted(json.loads(line)["id"] for line in f) == list("01234")


def test_clients(bench):
    """docs/examples/embed.py, the package, docs/read_embeddings.py by redis-py's own cluster."""
    worker = bench.worker()
    url = f"redis+cluster://:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{bench.nodes[0].port}"
    answers = run_python(DOCS / "examples" / "embed.py", url, STREAM).split()
    assert len(answers) == 9 and answers[0] == answers[4] == answers[8] == "1.0000", answers
    assert float(answers[1]) > float(answers[2]), answers
    run_python("-c", f"""
import redis
from embedmill_client.redis import RedisConsumer, RedisProducer, trim
client = redis.RedisCluster(host="127.0.0.1", port={bench.nodes[0].port}, password="{PASSWORD}")
producer = RedisProducer(client, "{STREAM}")
producer.send(["one", "two"], id="m")
producer.send("three", id="n")
consumer = RedisConsumer(client, "readers", "r", outputs="{OUTPUT}", dead_letters="{DEAD}")
ids = []
while len(ids) < 2:
    found = consumer.receive(timeout=30)
    assert found, ids
    ids += [one.output().id for one in found]
    consumer.ack(*found)
assert ids == ["m", "n"], ids
assert trim(client, "{STREAM}") == 1
""")
    bench.stop(worker)
    rows = [line.split("\t") for line in
            run_python(DOCS / "read_embeddings.py", url, OUTPUT).splitlines()]
    assert [row[0] for row in rows] == ["m/0", "m/1", "n"], rows


def test_failover(bench):
    """kill -9 of the master that serves the slot, and of a worker, while texts are under way. What
    a producer was told is on a replica (WAIT) is embedded once."""
    n = 200
    add(bench, 0, n)
    owner = bench.owner()
    assert owner.client.wait(1, 10000) >= 1, "the replica does not follow"
    workers = [bench.worker(*LOAD, name=f"f{i}") for i in range(2)]
    wait_for("work under way", lambda: owner.client.xlen(OUTPUT) > 10)
    owner.kill()
    workers[0].kill()
    done_before = time.monotonic()
    wait_for("a new master", lambda: bench.owner() not in (None, owner), 60)
    print(f"  a new master after {time.monotonic() - done_before:.1f} s")
    assert bench.owner().client.xlen(OUTPUT) < n, "all was done before the failover"
    workers.append(bench.worker(*LOAD, name="f2"))
    add(bench, n, 20)
    expect_once(bench, n + 20)
    for worker in workers[1:]:
        bench.stop(worker)
    owner.start()  # it comes back as a replica of the new one
    bench.processes.append(owner.process)
    wait_for("the old master back", bench.is_well, 60)


def becomes(what, seconds):
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.1)
    return what()


def test_planned_failover(bench):
    """CLUSTER FAILOVER under load: the new master is in step, the old one lets nobody write."""
    n = 150
    add(bench, 0, n)
    worker = bench.worker(*LOAD, name="p")
    owner = bench.owner()
    wait_for("work under way", lambda: owner.client.xlen(OUTPUT) > 10)
    replica = next(node for node in bench.nodes if node.client.info("replication").get(
        "master_port") == owner.port)
    for _ in range(8):  # masters that have just voted for another of its replicas do not vote again
        if replica.client.info("replication")["role"] != "master":
            replica.ask("CLUSTER", "FAILOVER")
        if becomes(lambda: bench.owner() is replica, 8):
            break
        add(bench, n, 100)
        n += 100
    assert bench.owner() is replica, "no new master"
    assert replica.client.xlen(OUTPUT) < n, "all was done before the failover"
    expect_once(bench, n)
    assert "has moved to" in bench.log("p") or "READONLY" in bench.log("p"), bench.log("p")
    bench.stop(worker)
    wait_for("the old master following", bench.is_well, 60)


def move_under_load(bench, *extra, n=300):
    """The slot goes to another master key by key, while texts are added and workers killed."""
    source = bench.owner()
    target = bench.others(source)[0]
    add(bench, 0, n // 2)
    workers = [bench.worker(*LOAD, *extra, name=f"m{i}") for i in range(2)]
    wait_for("work under way", lambda: bench.cluster.xlen(OUTPUT) > 10)
    state = {"added": n // 2, "kills": 0}

    def pause():
        for _ in range(3):
            add(bench, state["added"], 10)
            state["added"] += 10
            time.sleep(0.2)
        workers[0].kill()
        workers[0].wait()
        workers[0] = bench.worker(*LOAD, *extra, name=f"m-{state['kills']}")
        state["kills"] += 1

    bench.move_slot(target, pause)
    assert bench.owner() is target
    add(bench, state["added"], 10)
    return workers, state["added"] + 10


def test_move(bench):
    """Input, output and group go to another node while they are used."""
    workers, n = move_under_load(bench)
    expect_once(bench, n)
    for worker in workers:
        bench.stop(worker)
    assert "has moved to" in bench.log("m1"), bench.log("m1")
    assert "messages skipped" not in bench.log("m1"), bench.log("m1")


def test_asked_for_once(bench):
    """While the slot is not moved for good, all of it being there already: ASK is followed."""
    source = bench.owner()
    target = bench.others(source)[0]
    add(bench, 0, 20)
    worker = bench.worker(name="a")
    wait_for("outputs", lambda: source.client.xlen(OUTPUT) == 20)
    target.ask("CLUSTER", "SETSLOT", bench.slot(), "IMPORTING", source.id())
    source.ask("CLUSTER", "SETSLOT", bench.slot(), "MIGRATING", target.id())
    assert set(source.ask("CLUSTER", "GETKEYSINSLOT", bench.slot(), 9)) == {
        STREAM.encode(), OUTPUT.encode()}
    source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "AUTH", PASSWORD, "KEYS", STREAM,
               OUTPUT)
    add(bench, 20, 20)

    def n_there():
        with target.client.pipeline(transaction=False) as asked:
            asked.execute_command("ASKING")
            asked.execute_command("XLEN", OUTPUT)
            return asked.execute()[1]
    wait_for("outputs where they are moved to", lambda: n_there() == 40, 60)
    for node in (target, source, *bench.others(source)):
        node.ask("CLUSTER", "SETSLOT", bench.slot(), "NODE", target.id())
    add(bench, 40, 5)
    expect_once(bench, 45)
    bench.stop(worker)


def test_hashes(bench):
    """A hash for each text, with the tag in the prefix: as exactly once as an entry."""
    worker = bench.worker("--redis-output", "hash", "--redis-output-prefix", "{texts}:v:",
                          name="h")
    add(bench, 0, 20)
    wait_for("hashes", lambda: all(bench.cluster.exists(f"{{texts}}:v:{i}") for i in range(20)))
    wait_for("nothing pending",
             lambda: bench.cluster.xpending(STREAM, GROUP)["pending"] == 0)
    bench.stop(worker)
    made_with = "embedmill:made-with:{texts}:v:"
    assert bench.cluster.exists(made_with), "it is in another slot, or not there"


def fill(node, n):
    """With keys of another slot, so that a SCAN takes its time. Returns them."""
    for i in range(100):
        keys = [f"{{other-{i}}}:{k}" for k in range(n)]
        try:
            node.client.mset(dict.fromkeys(keys, ""))
            return keys
        except redis.exceptions.ResponseError: # a slot of another node
            continue
    raise AssertionError("no slot is of that node")


def test_migrate_moved(bench):
    """The slot moves while the keys of an output are looked for, to be compared and replaced."""
    n, prefix = 400, "{texts}:m:"
    note = "embedmill:made-with:" + prefix
    output = ("--redis-output", "hash", "--redis-output-prefix", prefix)
    corpus = os.path.join(bench.folder, "corpus.jsonl")
    small, large = cache_folder() / "all-minilm-l6-v2-q8_0.gguf", bench.model
    bench.model = str(small) if small.exists() else large
    with open(corpus, "w", encoding="utf-8") as file:
        for i in range(n):
            file.write(json.dumps({"id": str(i), "text": f"text number {i}"}) + "\n")
    add(bench, 0, n)
    worker = bench.worker(*output, name="m")
    wait_for("hashes", lambda: bench.cluster.exists(f"{prefix}{n - 1}"), 120)
    wait_for("nothing pending",
             lambda: bench.cluster.xpending(STREAM, GROUP)["pending"] == 0, 60)
    bench.stop(worker)
    command = [bench.binary, "migrate", bench.url(), corpus, *output, "--redis-stream", STREAM,
               "--dim", "128", "--model", bench.model, "--prompt", "none", "--work",
               os.path.join(bench.folder, "work")]
    bench.model = large
    source, journal = bench.owner(), "embedmill:moving:" + prefix
    target = bench.others(source)[0]
    others = fill(source, 30000)
    log = open(os.path.join(bench.folder, "log-migrate"), "ab")
    migrating = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
    bench.processes.append(migrating)
    wait_for("the side", lambda: bench.cluster.exists("embedmill:next:" + prefix + "0"))
    source.client.sadd(journal, "is deleted when the comparison begins")
    while source.client.exists(journal):
        assert migrating.poll() is None
    migrating.send_signal(signal.SIGSTOP)
    bench.move_slot(target, lambda: None)
    source.client.delete(*others)
    migrating.send_signal(signal.SIGCONT)
    code = migrating.wait(timeout=60)
    print(f"  the first ended with {code}")
    lens = [bench.cluster.hstrlen(f"{prefix}{i}", "embedding") for i in range(n)]
    if not bench.cluster.get(note).startswith(b"migrating"):
        assert len(set(lens)) == 1, "it is of two models"
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=120,
                          check=False)
    assert done.returncode == 0, (code, done.stderr)
    lens = {bench.cluster.hstrlen(f"{prefix}{i}", "embedding") for i in range(n)}
    assert lens == {4 * 128} and b"dim: 128" in bench.cluster.get(note), (code, lens)


def test_down(bench):
    """The majority of masters is gone: the cluster serves nobody; then it does again."""
    owner = bench.owner()
    worker = bench.worker(name="d")
    add(bench, 0, 10)
    expect_once(bench, 10)
    gone = [node for node in bench.nodes if node is not owner][:4]
    for node in gone:
        node.kill()
    wait_for("the log", lambda: "CLUSTERDOWN" in bench.log("d"), 60)
    for node in gone:
        node.start()
        bench.processes.append(node.process)
    wait_for("a cluster that is well", bench.is_well, 60)
    add(bench, 10, 10)
    expect_once(bench, 20)
    bench.stop(worker)


class TlsBench(ClusterBench):
    """One node that has all slots, and speaks TLS only to clients."""

    def __init__(self, binary):
        super().__init__(binary, 1, 0)
        make_certificates(self.folder)
        node = self.nodes[0]
        self.tls_port = free_ports(1)
        node.options = ("--tls-port", str(self.tls_port), "--tls-cluster", "yes",
                        "--tls-ca-cert-file", self.file("ca.pem"), "--tls-cert-file",
                        self.file("server.pem"), "--tls-key-file", self.file("server.key"),
                        "--tls-auth-clients", "no")

    def file(self, name):
        return os.path.join(self.folder, name)


def test_tls(bench):
    """rediss+cluster://: the port that CLUSTER SLOTS tells is that of TLS."""
    url = bench.url().replace("redis+", "rediss+").replace(str(bench.nodes[0].port),
                                                           str(bench.tls_port))
    worker = bench.start_worker("--redis-url", url, "--redis-stream", STREAM, "--redis-tls-ca",
                                bench.file("ca.pem"), name="t")
    add(bench, 0, 10)
    expect_once(bench, 10)
    bench.stop(worker)


CASES = (test_names, test_next_node, test_refused, test_commands, test_clients, test_hashes,
         test_failover, test_planned_failover, test_asked_for_once, test_move,
         test_migrate_moved, test_down)


def run(bench, cases):
    with bench:
        bench.start()
        for test in cases:
            started = time.monotonic()
            try:
                test(bench)
            except BaseException:
                for name in sorted(os.listdir(bench.folder)):
                    if name.startswith("log-"):
                        print(f"== {name}\n{bench.log(name[4:])[-3000:]}", file=sys.stderr)
                raise
            print(f"{test.__name__} {time.monotonic() - started:.1f} s", flush=True)
            clear(bench)


def main():
    if not shutil.which("redis-server"):
        print("skipped: there is no redis-server; install the package redis-server")
        sys.exit(77)
    wanted = sys.argv[2:]
    chosen = [test for test in CASES if not wanted or test.__name__ in wanted]
    if chosen:
        run(ClusterBench(sys.argv[1]), chosen)
    with_tls = has_tls() and (not wanted or "test_tls" in wanted)
    if with_tls:
        run(TlsBench(sys.argv[1]), [test_tls])
    elif not has_tls():
        print("skipped: test_tls: this redis-server has no TLS")
    print(f"{len(chosen) + with_tls} passed, 0 failed")


if __name__ == "__main__":
    try:
        main()
    except redis.exceptions.RedisError as error:
        sys.exit(f"the test's own client: {error}")
