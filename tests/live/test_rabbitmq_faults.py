#!/usr/bin/env python3
"""Faults between workers and a real rabbitmq-server: killed, frozen, cut off, short of memory, not
allowed any more. Nothing may be lost, and what is doubled has the same id and the same vector.

Usage: test_rabbitmq_faults.py EMBEDMILL [CASE ...]
"""
import json
import signal
import sys
import time

import pika

from chaos_proxy import ChaosProxy
from ports import free_port
from rabbitmq_bench import run_all, wait_for


def prepare(bench, queue, n, **arguments):
    bench.declare(queue, **arguments)
    bench.declare(f"{queue}-embeddings", f"{queue}-dlq", kind="classic")
    bench.add(0, n, queue)


def all_out(bench, queue, n, found, worker=None, seconds=90):
    """Gathers outputs into found until each of n texts is there; how many came."""
    times = 0
    deadline = time.monotonic() + seconds
    while len(found) < n and time.monotonic() < deadline:
        assert worker is None or worker.poll() is None, "the worker ended"
        new, more = bench.outputs(f"{queue}-embeddings")
        for name, value in new.items():
            assert name not in found or found[name][1]["embedding"] == value[1]["embedding"]
            found[name] = value
        times += more
        time.sleep(0.2)
    assert sorted(found, key=int) == [str(i) for i in range(n)], f"{len(found)} of {n}"
    return times


def case_worker_killed(bench):
    """SIGKILL every second or so; each text comes out, and few of them twice."""
    prepare(bench, "killed", 400, delivery_limit=100)
    found, times = {}, 0
    for _ in range(5):
        before = bench.length("killed-embeddings")
        worker = bench.start_worker("--rabbitmq-queue", "killed", "--max-deliveries", "0")
        wait_for("more outputs", lambda n=before: bench.length("killed-embeddings") > n + 40)
        worker.kill()
        worker.wait()
    worker = bench.start_worker("--rabbitmq-queue", "killed", "--max-deliveries", "0")
    times += all_out(bench, "killed", 400, found, worker)
    bench.stop(worker)
    assert bench.length("killed") == 0 and bench.length("killed-dlq") == 0
    print(f"        400 texts, {times} outputs")


def case_worker_drained(bench):
    """SIGTERM at any moment: nothing comes out twice."""
    prepare(bench, "drained", 300, kind="classic")
    for _ in range(6):
        before = bench.length("drained-embeddings")
        worker = bench.start_worker("--rabbitmq-queue", "drained", "--rabbitmq-prefetch", "16")
        wait_for("more outputs",
                 lambda n=before: bench.length("drained-embeddings") >= min(n + 20, 300))
        bench.stop(worker)
    worker = bench.start_worker("--rabbitmq-queue", "drained")
    wait_for("all", lambda: bench.length("drained-embeddings") >= 300, 60)
    bench.stop(worker)
    found, times = bench.outputs("drained-embeddings")
    assert len(found) == times == 300, times


def case_worker_frozen(bench):
    """SIGSTOP for longer than the server waits for a heartbeat: others have its messages."""
    prepare(bench, "frozen", 200)
    slow = bench.start_worker("--rabbitmq-queue", "frozen", name="slow")
    wait_for("some outputs", lambda: bench.length("frozen-embeddings") > 10)
    slow.send_signal(signal.SIGSTOP)
    fast = bench.start_worker("--rabbitmq-queue", "frozen", name="fast")
    found = {}
    times = all_out(bench, "frozen", 200, found, fast)
    slow.send_signal(signal.SIGCONT)
    time.sleep(3)
    bench.stop(slow)
    bench.stop(fast)
    more = bench.outputs("frozen-embeddings")[1]
    assert bench.length("frozen") == 0
    print(f"        200 texts, {times + more} outputs")


def case_broker_killed(bench):
    """kill -9 of the broker in the middle; and a minute without it."""
    prepare(bench, "broker", 300)
    worker = bench.start_worker("--rabbitmq-queue", "broker", "--drain-timeout", "20s", name="b")
    wait_for("some outputs", lambda: bench.length("broker-embeddings") > 20)
    bench.kill_server()
    time.sleep(60)
    assert worker.poll() is None
    bench.start_server()
    times = all_out(bench, "broker", 300, {}, worker)
    bench.stop(worker)
    assert "trying again" in bench.log("b")
    assert bench.length("broker") == 0
    print(f"        300 texts, {times} outputs")


def case_broker_frozen(bench):
    """SIGSTOP of the broker for longer than a heartbeat may take."""
    prepare(bench, "ice", 300)
    worker = bench.start_worker("--rabbitmq-queue", "ice", name="ice")
    wait_for("some outputs", lambda: bench.length("ice-embeddings") > 20)
    bench.signal_server(signal.SIGSTOP)
    try:
        wait_for("the silence to be found", lambda: "no heartbeat for" in bench.log("ice"), 60)
    finally:
        bench.signal_server(signal.SIGCONT)
    times = all_out(bench, "ice", 300, {}, worker)
    bench.stop(worker)
    print(f"        300 texts, {times} outputs")


def case_network(bench):
    """Silence, resets and torn replies between worker and broker."""
    prepare(bench, "net", 400, delivery_limit=100)
    port = free_port()
    with ChaosProxy(port, bench.port) as proxy:
        worker = bench.start_worker("--rabbitmq-queue", "net", "--max-deliveries", "0",
                                    url=f"amqp://127.0.0.1:{port}", name="net")
        for i in range(6):
            wait_for("some outputs", lambda n=i: bench.length("net-embeddings") > 15 * (n + 1))
            (proxy.reset, lambda: proxy.cut(3000), lambda: proxy.delay(0.2))[i % 3]()
            time.sleep(0.5)
            proxy.heal()
        proxy.hold()
        time.sleep(3)
        proxy.heal()
        times = all_out(bench, "net", 400, {}, worker)
        bench.stop(worker)
    assert bench.length("net") == 0
    print(f"        400 texts, {times} outputs")


def case_alarm(bench):
    """Memory alarm: the sink waits, acks are heard all the same, and it goes on by itself."""
    prepare(bench, "alarm", 200)
    bench.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        worker = bench.start_worker("--rabbitmq-queue", "alarm", name="alarm")
        wait_for("the alarm to be said", lambda: "takes no messages: low on memory" in
                 bench.log("alarm"))
        time.sleep(1)
        before = bench.length("alarm-embeddings")
        time.sleep(2)
        assert bench.length("alarm-embeddings") == before
    finally:
        bench.ctl("set_vm_memory_high_watermark", "absolute", "512MB")
    wait_for("all", lambda: bench.length("alarm-embeddings") >= 200, 60)
    bench.stop(worker)
    found, times = bench.outputs("alarm-embeddings")
    assert len(found) == times == 200, times


def case_rights(bench):
    """Rights taken away while it runs are waited for, on either side."""
    prepare(bench, "rights", 0)
    closing = "rabbit_networking:close_all_user_connections(<<\"r\">>, <<\"test\">>)."
    bench.ctl("add_user", "r", "pw")
    bench.ctl("set_permissions", "r", "", ".*", ".*")
    worker = bench.start_worker("--rabbitmq-queue", "rights", name="rights",
                                url=f"amqp://r:pw@127.0.0.1:{bench.port}")
    wait_for("started", lambda: "source is up" in bench.log("rights"))
    bench.ctl("set_permissions", "r", "", "", ".*")
    bench.ctl("eval", closing) # a channel remembers what it was allowed
    bench.add(0, 50, "rights")
    wait_for("the missing right", lambda: "allow this user to write" in bench.log("rights"), 60)
    bench.ctl("set_permissions", "r", "", ".*", "")
    bench.ctl("eval", closing)
    wait_for("the missing right", lambda: "allow this user to read" in bench.log("rights"), 60)
    assert worker.poll() is None
    bench.ctl("set_permissions", "r", "^$", "^amq\\.default$", "^rights$") # all that it needs
    times = all_out(bench, "rights", 50, {}, worker)
    bench.stop(worker)
    assert bench.length("rights") == 0
    print(f"        50 texts, {times} outputs")


def case_queue_deleted(bench):
    """The queue is deleted under the consumer, and made again."""
    prepare(bench, "deleted", 10)
    worker = bench.start_worker("--rabbitmq-queue", "deleted", name="deleted")
    wait_for("10 outputs", lambda: bench.length("deleted-embeddings") == 10)
    bench.channel.queue_delete("deleted")
    wait_for("the missing queue", lambda: "the server ended our consumer" in bench.log("deleted"))
    bench.declare("deleted")
    bench.add(10, 10, "deleted")
    wait_for("20 outputs", lambda: bench.length("deleted-embeddings") == 20, 40)
    bench.stop(worker)


def case_poison(bench):
    """A message that ends workers is found by its deliveries, and its neighbours pass."""
    prepare(bench, "poison", 0)
    channel = bench.channel
    channel.confirm_delivery()
    channel.basic_publish("", "poison", b"poison", pika.BasicProperties(message_id="p"))
    for _ in range(4): # a consumer that dies over it
        taker = bench.channel
        assert taker.basic_get("poison", auto_ack=False)[0]
        taker.connection.close()
        wait_for("it is back", lambda: bench.length("poison") == 1)
    bench.add(0, 20, "poison")
    worker = bench.start_worker("--rabbitmq-queue", "poison", "--max-deliveries", "3")
    wait_for("20 outputs", lambda: bench.length("poison-embeddings") == 20)
    wait_for("a dead letter", lambda: bench.length("poison-dlq") == 1)
    bench.stop(worker)
    [(_, properties, body)] = bench.take("poison-dlq")
    assert properties.headers["_code"] == "too_many_deliveries", properties
    assert properties.headers["_deliveries"] == "5" and body == b"poison", properties


def case_oversize(bench):
    """An output above the server's limit is a dead letter; one input of many MB passes."""
    prepare(bench, "large", 20)
    bench.ctl("eval", "persistent_term:put(max_message_size, 20000), "
                      "application:set_env(rabbit, max_message_size, 20000).")
    try:
        many = {"id": "many", "texts": [f"t {i}" for i in range(20)]} # 20 x 3 KB of output
        wide = {"id": "wide", "text": "w", "pad": "p" * 15000}
        for message in (many, wide):
            bench.channel.basic_publish("", "large", json.dumps(message).encode(),
                                        pika.BasicProperties(message_id=message["id"]))
        bench.add(20, 20, "large")
        worker = bench.start_worker("--rabbitmq-queue", "large", name="large")
        wait_for("41 outputs", lambda: bench.length("large-embeddings") >= 41, 60)
        wait_for("a dead letter", lambda: bench.length("large-dlq") == 1)
        bench.stop(worker)
    finally:
        bench.ctl("eval", "persistent_term:put(max_message_size, 134217728), "
                          "application:set_env(rabbit, max_message_size, 134217728).")
    [(_, properties, body)] = bench.take("large-dlq")
    assert properties.headers["_code"] == "output_too_large", properties
    assert json.loads(body)["id"] == "many" and bench.length("large") == 0
    found, times = bench.outputs("large-embeddings")
    assert len(found) == 41, sorted(found)
    print(f"        41 texts, {times} outputs")


def case_given_back_in_time(bench):
    """With the output away for longer than consumer_timeout, messages go back before the server
    closes the channel, once and not again and again."""
    prepare(bench, "late", 100)
    bench.channel.queue_delete("late-embeddings")
    worker = bench.start_worker("--rabbitmq-queue", "late", "--rabbitmq-consumer-timeout", "10s",
                                name="late")
    wait_for("given back", lambda: "are given back" in bench.log("late"), 30)
    wait_for("nothing held", lambda: bench.unacked("late") == 0, 10)
    time.sleep(12)
    assert bench.log("late").count("are given back") == 1 and bench.unacked("late") == 0
    assert "timed out" not in bench.log("late")
    bench.declare("late-embeddings", kind="classic")
    times = all_out(bench, "late", 100, {}, worker)
    bench.stop(worker)
    assert bench.length("late") == 0 and bench.length("late-dlq") == 0
    print(f"        100 texts, {times} outputs")


def case_server_timeout(bench):
    """The server's own consumer_timeout, shorter than the worker knows: said, and nothing lost."""
    prepare(bench, "short", 60)
    bench.channel.queue_delete("short-embeddings")
    bench.ctl("eval", "application:set_env(rabbit, consumer_timeout, 5000), "
                      "application:set_env(rabbit, channel_tick_interval, 1000).")
    try:
        worker = bench.start_worker("--rabbitmq-queue", "short", name="short")
        wait_for("the timeout", lambda: "set rabbitmq.consumer_timeout" in bench.log("short"), 90)
    finally:
        bench.ctl("eval", "application:set_env(rabbit, consumer_timeout, 1800000).")
    bench.declare("short-embeddings", kind="classic")
    all_out(bench, "short", 60, {}, worker)
    bench.stop(worker)
    assert bench.length("short-dlq") == 0


def case_drain_without_broker(bench):
    """Stopped while the broker is away: exit code 75 when acks were not confirmed, and never 0 when
    something is delivered again."""
    prepare(bench, "last", 200)
    worker = bench.start_worker("--rabbitmq-queue", "last", "--drain-timeout", "3s", name="last")
    wait_for("some outputs", lambda: bench.length("last-embeddings") > 30)
    bench.signal_server(signal.SIGSTOP)
    try:
        time.sleep(1)
        worker.send_signal(signal.SIGTERM)
        code = worker.wait(timeout=30)
    finally:
        bench.signal_server(signal.SIGCONT)
    assert code == 75, code
    worker = bench.start_worker("--rabbitmq-queue", "last")
    all_out(bench, "last", 200, {}, worker)
    bench.stop(worker)


if __name__ == "__main__":
    sys.exit(run_all(globals(), sys.argv[1], sys.argv[2:]))
