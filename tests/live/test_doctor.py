#!/usr/bin/env python3
"""`embedmill check` and `embedmill doctor`: what they find, what they say, and leave as it was.

Usage: test_doctor.py EMBEDMILL [CASE ...]
"""
import json
import os
import platform
import socket
import subprocess
import sys

from redis_bench import Bench


def run(bench, command, *extra, port=None, user="", env=None):
    """(exit code, {(area, what): (result, said)})"""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("EMBEDMILL_")}
    done = subprocess.run(
        [bench.binary, command, "--json", "--model", bench.model, "--redis-url",
         f"redis://{user}127.0.0.1:{port or bench.port}", "--redis-timeout", "1s",
         "--metrics-listen", "127.0.0.1:9464", *extra],
        capture_output=True, text=True, timeout=120, check=False, env={**clean, **(env or {})})
    assert "hunter2" not in done.stdout + done.stderr
    if not done.stdout:
        return done.returncode, done.stderr
    found = json.loads(done.stdout)
    assert found["exit_code"] == done.returncode
    rows = {(f["area"], f["what"]): (f["result"], f["said"]) for f in found["findings"]}
    return done.returncode, rows


def case_check(bench):
    """No network: a broker that is not there is none of its business."""
    code, rows = run(bench, "check", port=1)
    assert code == 0 and all(result != "bad" for result, _ in rows.values()), rows
    assert ("machine", "threads") in rows and ("machine", "memory") in rows
    for command in ("check", "doctor", "top", "probe"):
        said = subprocess.run([bench.binary, command, "--help"], capture_output=True, text=True,
                              check=True).stdout
        assert said.startswith(f"Usage: embedmill {command} ") and "Exit codes:\n  0 " in said
        assert subprocess.run([bench.binary, command, "--nonsense"], capture_output=True,
                              check=False).returncode == 64
        shown = subprocess.run([bench.binary, command, "--print-config", "--redis-stream", "shown"],
                               capture_output=True, text=True, check=False)
        if command in ("check", "doctor"):
            assert shown.returncode == 0 and 'stream: "shown"' in shown.stdout, shown
            assert "json:" not in shown.stdout, "`run` has no such option"
    code, said = run(bench, "check", "--threads", "many")
    assert code == 64 and "--threads" in said, said
    code, said = run(bench, "check", env={"EMBEDMILL_THREADS": "many"})
    assert code == 78 and "EMBEDMILL_THREADS" in said, said
    for flags, what, wanted in ((("--prompt", "qery"), "prompt", 64),
                                (("--metrics-listen", "9464"), "metrics.listen", 64),
                                (("--redis-output-url", "http://x"), "redis.output_url", 64),
                                (("--redis-stream", ""), "redis.stream", 64),
                                (("--redis-stream", "a,b,a"), "redis.stream", 64)):
        code, rows = run(bench, "check", *flags)
        assert code == wanted and rows["config", what][0] == "bad", (flags, rows)
    for source, sink in (("kafka", "redis"), ("redis", "kafka"), ("kafka", "stdout"),
                         ("stdin", "redis"), ("redis", "stdout"), ("stdin", "stdout")):
        ends = ("--source", source, "--sink", sink, "--delivery", "exactly-once")
        code, rows = run(bench, "check", *ends)
        assert code == 64 and "kafka to kafka" in rows["config", "delivery"][1], rows
        done = subprocess.run([bench.binary, "run", "--model", bench.model, *ends], timeout=60,
                              capture_output=True, text=True, check=False)
        assert done.returncode == 64 and "--delivery" in done.stderr, done
    done = subprocess.run( # what workers promise is nothing to a filter
        [bench.binary, "embed", "--model", bench.model], input="a", timeout=60, check=False,
        capture_output=True, text=True, env={**os.environ, "EMBEDMILL_DELIVERY": "exactly-once"})
    assert done.returncode == 0, done
    code, rows = run(bench, "check", "--model", "/no/such/file")
    assert code == 66 and "scripts/get-model" in rows["model", "file"][1], rows
    foreign = "avx2" if platform.machine() == "aarch64" else "neon"
    code, rows = run(bench, "check", "--kernels", foreign)
    assert code == 64 and rows["config", "kernels"][0] == "bad", rows
    code, rows = run(bench, "check", env={"EMBEDMILL_PROMPT": "qery"})
    assert code == 78 and rows["config", "prompt"][0] == "bad", rows
    code, rows = run(bench, "check", "--threads", "1000")
    assert code in (0, 70) and rows["machine", "threads"][0] == "warn"
    assert rows["machine", "memory"][0] in ("warn", "bad"), rows


def case_healthy(bench):
    """All is well, and afterwards nothing is there that was not there before."""
    bench.start_server()
    bench.client.xgroup_create("texts", "embedmill", "0", mkstream=True)
    bench.add(0, 3)
    before = {key: bench.client.dump(key) for key in bench.client.keys()}
    server = bench.client.info("server")
    name = ("Valkey " + server["valkey_version"] if "valkey_version" in server
            else "Redis " + server["redis_version"])
    for output in ("stream", "key", "hash"):
        code, rows = run(bench, "doctor", "--redis-output", output)
        assert code == 0, rows
        assert rows["redis", "permissions"][0] == "ok"
        said = rows["redis", "version"][1]
        assert said == name or said.startswith(name + ","), rows
        assert "lag 3" in rows["redis", "group"][1], rows
        assert float(rows["model", "test embedding"][1].split()[1]) > 0.999, rows
        assert rows["redis", "clock"][0] == "ok"
    assert {key: bench.client.dump(key) for key in bench.client.keys()} == before
    assert bench.client.xinfo_consumers("texts", "embedmill") == []


def case_refused(bench):
    code, rows = run(bench, "doctor", port=1)
    said = rows["redis", "connection"][1]
    assert code == 69 and "refused" in said and said.endswith("; see redis.url"), rows
    assert said.count("?") == 1 and "trying again" not in said, said
    code, rows = run(bench, "doctor", "--redis-output-url", "redis://127.0.0.1:2", port=1)
    assert code == 69 and rows["redis", "connection"][1].endswith("; see redis.output_url"), rows


def case_wrong_password(bench):
    bench.start_server("--requirepass", "secret", wait=False)
    code, rows = run(bench, "doctor", user=":hunter2@")
    assert code == 69 and "redis.url" in rows["redis", "connection"][1], rows
    code, rows = run(bench, "doctor")
    assert code == 69 and "password" in rows["redis", "connection"][1], rows


def case_rights(bench):
    """Each right that is missing is told by the name of what it is for."""
    bench.start_server()
    bench.client.execute_command(
        "ACL", "SETUSER", "bob", "on", ">hunter2", "~texts", "+@all", "-xack", "-info", "-@admin",
        "-@dangerous")
    code, rows = run(bench, "doctor", user="bob:hunter2@")
    assert code == 69
    bad = {what for (_, what), (result, _) in rows.items() if result == "bad"}
    assert bad == {"may ack", "may dead-letter", "may write"}, rows
    assert rows["redis", "server"][0] == "warn"
    assert bench.client.keys() == []

    def bad_for(*rights, flags=(), url=None):
        bench.client.execute_command("ACL", "SETUSER", "eve", "reset", "on", ">hunter2", *rights)
        flags += ("--redis-output-url", url) if url else ()
        _, rows = run(bench, "doctor", *flags, user="" if url else "eve:hunter2@")
        return {what for (_, what), (result, _) in rows.items() if result == "bad"}

    assert bad_for("~*", "+@all", "-xgroup") == {"may make the group"}
    assert bad_for("~*", "+@all", "-xrange") == {"may look"}
    assert bad_for("~*", "+@all", "-evalsha") == {"may script"}
    assert bad_for("~*", "+@all", "-evalsha", "-script") == set() # sent whole each time
    bench.client.xgroup_create("texts", "embedmill", "0", mkstream=True)
    assert bad_for("~*", "+@all", "-xgroup") == set()
    # Another database, where the user may touch the outputs alone.
    url = f"redis://eve:hunter2@127.0.0.1:{bench.port}/1"
    mine = ("~e:*", "~texts:dlq", "+@all")
    flags = ("--redis-output", "hash", "--redis-output-prefix", "e:", "--redis-expire", "1h")
    assert bad_for(*mine, flags=flags, url=url) == set()
    assert bad_for(*mine, "-pexpire", flags=flags, url=url) == {"may expire"}
    assert bad_for(*mine, "-del", flags=flags, url=url) == set() # Redis has no tombstones
    flags += ("--source", "kafka", "--kafka-topic", "t", "--kafka-brokers", "127.0.0.1:1")
    assert "may delete" in bad_for(*mine, "-del", flags=flags, url=url)


def case_taken_port(bench):
    bench.start_server()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        code, rows = run(bench, "doctor", "--metrics-listen", where)
    assert code == 0 and rows["machine", "metrics.listen"][0] == "warn", rows
    assert "each its own" in rows["machine", "metrics.listen"][1], rows


def case_streams(bench):
    """Each of several streams is looked at, and told by its name."""
    bench.start_server()
    bench.client.xgroup_create("a", "embedmill", "0", mkstream=True)
    streams = ("--redis-stream", "a,b")
    code, rows = run(bench, "doctor", *streams)
    assert code == 0 and rows["redis", "permissions"][0] == "ok", rows
    assert rows["redis", "group"][1].startswith("embedmill of a: "), rows
    assert rows["redis", "stream"][1].startswith("b does not exist yet"), rows
    assert bench.client.keys() == [b"a"]
    bench.client.execute_command("ACL", "SETUSER", "bob", "on", ">hunter2", "~a*", "+@all")
    code, rows = run(bench, "doctor", *streams, user="bob:hunter2@")
    assert code == 69 and rows["redis", "may read"][1].startswith("b: NOPERM"), rows
    assert rows["redis", "may dead-letter"][1].startswith("b:dlq: NOPERM"), rows
    bench.client.set("b", "not a stream")
    code, rows = run(bench, "doctor", *streams)
    assert code == 69 and "b is a string" in rows["redis", "stream"][1], rows


def case_unfit(bench):
    """A wrong type of key, a full server, one that evicts, a replica."""
    bench.start_server()
    bench.client.set("texts", "not a stream")
    code, rows = run(bench, "doctor")
    assert code == 69 and "string" in rows["redis", "stream"][1], rows
    bench.client.delete("texts")
    bench.client.set("texts:dlq", "not a stream")
    code, rows = run(bench, "doctor")
    assert code == 69 and rows["redis", "stream"][1].startswith("texts:dlq is a string"), rows
    bench.client.delete("texts:dlq")
    bench.client.config_set("maxmemory", 1)
    code, rows = run(bench, "doctor")
    assert code == 69 and "maxmemory" in rows["redis", "may write"][1], rows
    bench.client.config_set("maxmemory", "1gb")
    bench.client.config_set("maxmemory-policy", "allkeys-lru")
    code, rows = run(bench, "doctor")
    assert code == 0 and rows["redis", "memory policy"][0] == "warn", rows
    bench.client.execute_command("REPLICAOF", "127.0.0.1", "1")
    code, rows = run(bench, "doctor")
    assert code == 69 and rows["redis", "role"][0] == "bad", rows


def main():
    cases = {name[5:]: f for name, f in globals().items() if name.startswith("case_")}
    for name in sys.argv[2:] or cases:
        with Bench(sys.argv[1]) as bench:
            cases[name](bench)
        print(f"{name}: ok")


if __name__ == "__main__":
    main()
