#!/usr/bin/env python3
"""redis+sentinel:// against real servers and sentinels: the worker finds the master, goes on with
the next sentinel when one is away, and follows a failover by itself: of a master that was killed,
and, with TLS to all of them, one that was ordered.

Usage: test_redis_sentinel.py EMBEDMILL
"""
import os
import socket
import subprocess
import sys
import time

import msgpack
import redis

from ports import free_port
from redis_bench import Bench, has_tls, wait_for
from test_redis_tls import make_certificates

MASTER = "mill"
PASSWORD = "open sesame"
N_BEFORE, N_DURING, N_AFTER = 10, 40, 10
N_PLANNED = 150


class SentinelBench(Bench):
    """Bench.client and Bench.server are of the first master; a replica; sentinels."""
    scheme, n_sentinels = "redis+sentinel", 3

    def __init__(self, binary):
        super().__init__(binary)
        self.master_port = self.port  # for the replica and the sentinels
        self.client = redis.Redis(port=self.port, password=PASSWORD)
        self.replica_port = free_port()
        self.replica = redis.Redis(port=self.replica_port, password=PASSWORD)
        self.sentinel_ports = []

    def spawn(self, *words):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        self.processes.append(process)
        return process

    def tls_options(self, _port):
        return {}

    def start(self):
        secrets = ("--requirepass", PASSWORD, "--masterauth", PASSWORD)
        self.start_server(*secrets, *self.tls_words(self.master_port))
        folder = os.path.join(self.folder, "replica")
        os.mkdir(folder)
        self.spawn("redis-server", "--port", str(self.replica_port), "--bind", "127.0.0.1",
                   "--dir", folder, "--save", "", "--replicaof", "127.0.0.1",
                   str(self.master_port), *secrets, *self.tls_words(free_port()))
        wait_for("the replica in step", lambda: self.replica.info("replication")
                 ["master_link_status"] == "up")
        for _ in range(self.n_sentinels):
            self.start_sentinel()
        wait_for("sentinels that know each other", self.sentinels_agree)

    def tls_words(self, port):
        return [word for name, value in self.tls_options(port).items()
                for word in ("--" + name, str(value))]

    def start_sentinel(self):
        port = free_port()
        path = os.path.join(self.folder, f"sentinel-{port}.conf")
        with open(path, "w", encoding="ascii") as f:
            tls = self.tls_options(port)
            for name, value in ({"port": 0, **tls} if tls else {"port": port}).items():
                f.write(f"{name} {value}\n")
            f.write(f"bind 127.0.0.1\ndir {self.folder}\n"
                    f"sentinel monitor {MASTER} 127.0.0.1 {self.master_port} "
                    f"{self.n_sentinels // 2 + 1}\n"
                    f'sentinel auth-pass {MASTER} "{PASSWORD}"\n'
                    f"sentinel down-after-milliseconds {MASTER} 3000\n"
                    f"sentinel failover-timeout {MASTER} 5000\n")
        self.spawn("redis-server", path, "--sentinel")
        self.sentinel_ports.append(port)

    def sentinels_agree(self):
        for port in self.sentinel_ports:
            with self.sentinel(port) as sentinel:
                known = sentinel.sentinel_master(MASTER)
                if known["num-other-sentinels"] != self.n_sentinels - 1 or known["num-slaves"] != 1:
                    return False
        return True

    def sentinel(self, port):
        return redis.Redis(port=port)

    def url(self, ports=None, master=MASTER):
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports or self.sentinel_ports)
        return f"{self.scheme}://:{PASSWORD.replace(' ', '%20')}@{hosts}/{master}"

    def worker(self, name="w", **how):
        return self.start_worker("--redis-url", self.url(**how), name=name)

    def expect_log(self, phrase, name="w"):
        wait_for(f"the log saying '{phrase}'", lambda: phrase in self.log(name))


class TlsSentinelBench(SentinelBench):
    """Workers, sentinels, replication speak TLS only; the test itself comes by the plain ports."""
    scheme, n_sentinels = "rediss+sentinel", 1

    def __init__(self, binary):
        super().__init__(binary)
        make_certificates(self.folder)
        self.master_port = free_port()
        self.ca = os.path.join(self.folder, "ca.pem")

    def tls_options(self, port):
        return {"tls-port": port, "tls-replication": "yes", "tls-auth-clients": "no",
                "tls-ca-cert-file": self.ca,
                "tls-cert-file": os.path.join(self.folder, "server.pem"),
                "tls-key-file": os.path.join(self.folder, "server.key")}

    def sentinel(self, port):
        return redis.Redis(port=port, ssl=True, ssl_ca_certs=self.ca)


def outputs(client):
    return [msgpack.unpackb(fields[b"body"])["id"]
            for _, fields in client.xrange("texts:embeddings")]


def inputs(client):
    return [fields[b"id"].decode() for _, fields in client.xrange("texts")]


def test_next_sentinel(bench):
    """One that refuses and one that is silent come first; they are not asked a second time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = [free_port(), silent.getsockname()[1], bench.sentinel_ports[1]]
        worker = bench.worker(ports=ports)
        bench.add(0, N_BEFORE)
        bench.expect_once(N_BEFORE)
        bench.stop(worker)
    bench.client.delete("texts", "texts:embeddings")


def test_refused(bench):
    """No sentinel there, none that knows the name, none that is one: said, and waited for."""
    for name, how, phrase in (
            ("nobody", {"ports": [free_port()]}, "is the server running"),
            ("no-name", {"master": "gone"}, "it knows no master 'gone'"),
            ("no-sentinel", {"ports": [bench.port]}, "is this a sentinel")):
        worker = bench.worker(name=name, **how)
        bench.expect_log(phrase, name)
        bench.stop(worker)
        assert PASSWORD not in bench.log(name) and "sesame" not in bench.log(name)


def test_commands(bench):
    """What a person runs by hand knows the form too."""
    run = subprocess.run([bench.binary, "doctor", "--model", bench.model, "--redis-url",
                          bench.url()], capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0 and f"{MASTER}/0 by sentinels" in run.stdout, run.stdout
    bench.client.xadd("texts:dlq", {"body": "x", "_code": "bad_input", "_error": "a reason"})
    listed = subprocess.run([bench.binary, "dlq", "list", "--redis-url", bench.url()], check=True,
                            capture_output=True, text=True, timeout=30).stdout
    assert "bad_input" in listed, listed
    lost = subprocess.run([bench.binary, "dlq", "list", "--redis-url", bench.url(master="gone")],
                          check=False, capture_output=True, text=True, timeout=30)
    assert lost.returncode and "knows no master 'gone'" in lost.stderr, lost
    bench.client.delete("texts:dlq")


def test_failover(bench):
    """kill -9 of the master while texts are under way."""
    worker = bench.worker(name="f")
    bench.add(0, N_BEFORE)
    bench.expect_once(N_BEFORE)
    bench.add(N_BEFORE, N_DURING)
    wait_for("work under way", lambda: bench.client.xlen("texts:embeddings") > N_BEFORE)
    bench.server.kill()
    bench.server.wait()
    wait_for("a new master", lambda: bench.replica.info("replication")["role"] == "master")
    # From here on the new master alone counts: what it never heard of is gone.
    for i in range(N_BEFORE + N_DURING, N_BEFORE + N_DURING + N_AFTER):
        bench.replica.xadd("texts", {"text": f"text number {i}", "id": str(i)})
    expected = set(inputs(bench.replica))
    assert len(expected) >= N_BEFORE + N_AFTER, sorted(expected, key=int)
    wait_for("all that the new master has", lambda: expected <= set(outputs(bench.replica)), 90)
    wait_for("nothing pending",
             lambda: bench.replica.xpending("texts", "embedmill")["pending"] == 0)
    # One server acks and writes in one step, which a replica takes over as one.
    got = outputs(bench.replica)
    assert len(got) == len(set(got)), sorted(got, key=int)
    bench.stop(worker)
    assert "the URL must lead to the master" not in bench.log("f")


def test_planned_failover(bench):
    """SENTINEL FAILOVER under load. What the old master was told after the other was made master is
    gone with it, outputs and acks together: nothing is missing, and nothing there twice."""
    worker = bench.start_worker("--redis-url", bench.url(), "--redis-tls-ca", bench.ca,
                                "--batch-texts", "16", name="p")
    bench.add(0, N_PLANNED)
    assert bench.client.wait(1, 10000) == 1, "the replica does not follow"
    wait_for("work under way", lambda: bench.client.xlen("texts:embeddings") > 10)
    with bench.sentinel(bench.sentinel_ports[0]) as sentinel:
        sentinel.execute_command("SENTINEL", "FAILOVER", MASTER)
    wait_for("a new master", lambda: bench.replica.info("replication")["role"] == "master")
    done = len(outputs(bench.replica))
    assert done < N_PLANNED, "all was done before the failover"
    wait_for("the old one following", lambda: bench.client.info("replication")["role"] == "slave")
    for i in range(N_PLANNED, N_PLANNED + N_AFTER):
        bench.replica.xadd("texts", {"text": f"text number {i}", "id": str(i)})
    everything = [str(i) for i in range(N_PLANNED + N_AFTER)]
    wait_for("all of it", lambda: set(outputs(bench.replica)) == set(everything), 60)
    wait_for("nothing pending",
             lambda: bench.replica.xpending("texts", "embedmill")["pending"] == 0)
    got = outputs(bench.replica)
    assert sorted(got, key=int) == everything, got
    bench.stop(worker)


def main():
    plan = ((SentinelBench, (test_next_sentinel, test_refused, test_commands, test_failover)),
            (TlsSentinelBench, (test_planned_failover,)))
    if not has_tls():
        print("skipped: test_planned_failover: this redis-server has no TLS")
        plan = plan[:1]
    for kind, tests in plan:
        with kind(sys.argv[1]) as bench:
            bench.start()
            for test in tests:
                started = time.monotonic()
                test(bench)
                print(f"{test.__name__} {time.monotonic() - started:.1f} s", flush=True)
    print(f"{sum(len(tests) for _, tests in plan)} passed, 0 failed")


if __name__ == "__main__":
    try:
        main()
    except redis.exceptions.RedisError as error:
        sys.exit(f"the test's own client: {error}")
