#!/usr/bin/env python3
"""The endpoint of real workers: what promtool, Prometheus, probes and systemd make of it.

Each case has a redis-server and workers of its own on free ports and data in a temporary folder.

Usage: test_metrics_live.py EMBEDMILL [CASE ...]
"""
import contextlib
import fcntl
import http.server
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import redis

from ports import free_port
from redis_bench import Bench, wait_for


def get(address, path, method="GET"):
    """(status, text)"""
    request = urllib.request.Request(f"http://{address}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


@contextlib.contextmanager
def serving(metrics):
    """The address of an endpoint that has these metrics, and some of a server of embeddings."""
    text = (metrics + "embedmill_http_connections 1\n").encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def values(address):
    """{name with labels: value} of one scrape"""
    lines = get(address, "/metrics")[1].splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
            for line in lines if not line.startswith("#")}


def start(bench, *extra, name="w", **more):
    """(worker, address of its endpoint)"""
    worker = bench.start_worker("--metrics-listen", "127.0.0.1:0", *extra, name=name, **more)
    wait_for("the address in the log", lambda: '"serving metrics"' in bench.log(name), 60)
    address = re.findall(r'"serving metrics","listen":"([^"]*)"', bench.log(name))[-1]
    return worker, address


def cpu_seconds(process):
    with open(f"/proc/{process.pid}/stat", encoding="utf-8") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def case_values(bench):
    """A run's numbers add up, promtool accepts their form, and the log holds no text."""
    bench.start_server()
    bench.add(0, 40)
    bench.client.xadd("texts", {"body": json.dumps({"text": "Zaubertrank " * 3000})})
    bench.client.xadd("texts", {"body": '{"text": "Geheimnis'})
    before = time.time()
    worker, address = start(bench, "--input-format", "auto")
    after = time.time()
    wait_for("42 results", lambda: values(address)["embedmill_messages_published_total"] +
             values(address).get('embedmill_dead_letters_total{code="bad_json"}', 0) == 42, 120)
    text = get(address, "/metrics")[1]
    check = subprocess.run(["promtool", "check", "metrics"], input=text, text=True,
                           capture_output=True, check=False)
    assert check.returncode == 0 and not check.stderr, check.stderr
    now = values(address)
    assert now["embedmill_texts_embedded_total"] == 41, now
    assert now["embedmill_truncated_total"] == 1
    assert now['embedmill_errors_total{stage="decode",code="bad_json"}'] == 1
    assert now["embedmill_text_tokens_count"] == now["embedmill_embedding_seconds_count"] == 41
    assert now["embedmill_end_to_end_seconds_count"] == 41
    assert now["embedmill_inference_busy_seconds_total"] > 0
    assert now["embedmill_inflight_texts"] == 0
    batches = sum(v for k, v in now.items() if k.startswith("embedmill_batches_total"))
    assert batches >= now["embedmill_batch_texts_count"] >= 1
    assert now["process_resident_memory_bytes"] > now["embedmill_private_memory_bytes"] > 1e6
    assert 3 < now["process_open_fds"] < 100
    assert before - 1 < now["process_start_time_seconds"] < after + 1
    wait_for("the lag", lambda: values(address).get('embedmill_source_lag{part="texts"}') == 0, 15)
    assert get(address, "/readyz") == (200, "ok\n")
    assert get(address, "/")[0] == 404
    assert get(address, "/metrics", "DELETE")[0] == 405
    bench.stop(worker)
    assert "Zaubertrank" not in bench.log() and "Geheimnis" not in bench.log()
    assert "text number" not in bench.log()


def case_ready(bench):
    """Not ready without a broker, live all the while; ready when joined; not while it drains."""
    worker, address = start(bench)
    assert get(address, "/livez") == (200, "ok\n")
    assert get(address, "/readyz") == (503, "the input is not joined\n")
    bench.start_server()
    wait_for("readiness", lambda: get(address, "/readyz")[0] == 200)
    now = values(address)
    for side in ("input", "output"): # one time away, whatever was told of it meanwhile
        assert now[f'embedmill_errors_total{{stage="{side}",code="unavailable"}}'] == 1, now
    # Enough work for seconds, so that draining can be seen.
    for i in range(60):
        bench.client.xadd("texts", {"body": json.dumps({"id": i, "text": f"{i} word" * 700})})
    wait_for("work", lambda: values(address)["embedmill_inflight_texts"] > 0)
    worker.terminate()
    wait_for("draining", lambda: get(address, "/readyz") == (503, "draining\n"), 10)
    assert get(address, "/livez")[0] == 200
    worker.kill()


def case_reclaimed(bench):
    """What another worker left is counted by the one that takes it over."""
    bench.start_server()
    bench.client.xgroup_create("texts", "embedmill", "0", mkstream=True)
    bench.add(0, 5)
    bench.client.xreadgroup("embedmill", "dead", {"texts": ">"}, count=5)
    worker, address = start(bench)
    wait_for("five taken over", lambda: values(address)["embedmill_reclaimed_total"] == 5)
    bench.stop(worker)


def case_taken_port(bench):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        worker = bench.start_worker("--metrics-listen", f"127.0.0.1:{port}")
        assert worker.wait(timeout=60) == 69
    assert "each its own" in bench.log()
    worker = bench.start_worker("--metrics-listen", "9464", name="v")
    assert worker.wait(timeout=60) == 64
    assert "expected HOST:PORT" in bench.log("v") and "model is ready" not in bench.log("v")


def case_strangers(bench):
    """Silence, garbage, endless headers, more connections than there is room for: no spinning, and
    the endpoint answers again when they are gone."""
    worker, address = start(bench)
    where = (address.split(":")[0], int(address.split(":")[1]))
    for head in (b"\0\xff garbage\r\n\r\n", b"GET /metrics HTTP/9.9\r\n\r\n",
                 b"GET /" + b"x" * 100000, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20000):
        with socket.create_connection(where, timeout=10) as s:
            try:
                s.sendall(head)
                s.shutdown(socket.SHUT_WR)
                s.recv(65536)
            except OSError:
                pass # it may hang up on us
    assert get(address, "/livez")[0] == 200
    silent = [socket.create_connection(where, timeout=10) for _ in range(50)]
    before = cpu_seconds(worker)
    time.sleep(2)
    assert cpu_seconds(worker) - before < 0.5, "it spins"
    for s in silent:
        s.close()
    wait_for("an answer", lambda: get(address, "/livez")[0] == 200)
    bench.stop(worker)


def case_systemd(bench):
    """READY only after the broker is joined, WATCHDOG while it waits, STOPPING at the end."""
    path = os.path.join(bench.folder, "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.settimeout(60)
        os.environ.update(NOTIFY_SOCKET=path, WATCHDOG_USEC="1500000")
        try:
            worker = bench.start_worker()
        finally:
            del os.environ["NOTIFY_SOCKET"], os.environ["WATCHDOG_USEC"]
        heard = []

        def hear(word):
            while not any(word in message for message in heard):
                heard.append(systemd.recv(1000).decode())

        hear("WATCHDOG=1")
        assert not any("READY=1" in message for message in heard), heard
        bench.start_server()
        hear("READY=1")
        hear("STATUS=working")
        bench.stop(worker)
        hear("STOPPING=1")


def case_log(bench):
    """No secret and no text in the log, repeats held back, the trace carried on and told."""
    secret, trace = "hunter2", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    bench.start_server("--requirepass", "right", wait=False)
    worker = bench.start_worker("--redis-url", f"redis://:{secret}@127.0.0.1:{bench.port}")
    assert worker.wait(timeout=60) == 69
    bench.client = redis.Redis(port=bench.port, password="right")
    bad = [b'{"text": "Geheimnis', b'{"text": ["Geheimnis"]}', b'{"text": "Geheimnis", "id": {}}',
           b'{"text": "a", "prompt": "Geheimnis"}', b"\x81\xa4text\xdaGeheimnis",
           json.dumps({"text": "Geheimnis " * 3000}).encode()]
    for i in range(60):
        bench.client.xadd("texts", {"body": bad[i % len(bad)], "traceparent": trace})
    bench.client.xadd("texts", {"body": '{"text": "good"}', "traceparent": trace})
    worker = bench.start_worker("--redis-url", f"redis://:right@127.0.0.1:{bench.port}",
                                "--input-format", "auto", "--too-long", "error",
                                "--log-level", "debug")
    wait_for("60 dead letters", lambda: bench.client.xlen("texts:dlq") == 60, 60)
    wait_for("an embedding", lambda: bench.client.xlen("texts:embeddings") == 1, 60)
    bench.stop(worker)
    for stream in ("texts:dlq", "texts:embeddings"):
        for _, fields in bench.client.xrange(stream):
            assert fields[b"traceparent"] == trace.encode(), fields.keys()
    log = bench.log()
    assert secret not in log and "right@" not in log and "Geheimnis" not in log, log
    letters = [json.loads(line) for line in log.splitlines() if "dead letter" in line]
    assert all(letter.get("traceparent", trace) == trace for letter in letters), letters
    assert any("traceparent" in letter for letter in letters)
    assert len(letters) < 20 and sum(letter.get("repeated", 0) for letter in letters) > 30, letters


def spans_in(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
                for line in lines]


def case_spans(bench):
    """A span for each batch, with links to those that sent its messages; off: none."""
    bench.start_server()
    path = os.path.join(bench.folder, "spans.jsonl")
    parents = [f"00-{i:032x}-{i + 7:016x}-0{i % 2}" for i in range(1, 41)]
    for i, parent in enumerate([*parents, "no trace", None]):
        fields = {"body": json.dumps({"id": i, "text": f"text {i}"})}
        bench.client.xadd("texts", fields | ({"traceparent": parent} if parent else {}))
    worker, address = start(bench, "--trace-file", path, "--batch-texts", "8")
    wait_for("42 results", lambda: bench.client.xlen("texts:embeddings") == 42, 120)
    batches = sum(n for name, n in values(address).items()
                  if name.startswith("embedmill_batches_total"))
    bench.stop(worker)
    spans = spans_in(path)
    counts = [next(int(pair["value"]["intValue"]) for pair in span["attributes"]
                   if pair["key"] == "messaging.batch.message_count") for span in spans]
    assert len(spans) == batches and sum(counts) == 42, (len(spans), batches, counts)
    links = [link for span in spans for link in span["links"]]
    got = sorted(f"00-{link['traceId']}-{link['spanId']}-0{link['flags']}" for link in links)
    assert got == sorted(parents), got
    for span in spans:
        assert re.fullmatch("[0-9a-f]{32}", span["traceId"]) and int(span["traceId"], 16), span
        assert re.fullmatch("[0-9a-f]{16}", span["spanId"]) and int(span["spanId"], 16), span
        began, ended = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
        assert 0 < ended - began < 120e9 and abs(ended / 1e9 - time.time()) < 600, span
    bench.client.xadd("texts", {"body": "one more", "traceparent": parents[0]})
    worker = bench.start_worker()
    wait_for("43 results", lambda: bench.client.xlen("texts:embeddings") == 43, 120)
    bench.stop(worker)
    assert len(spans_in(path)) == len(spans)


def case_top(bench):
    """The table of two workers and one that is not there; the same on a terminal; probes."""
    bench.start_server()
    bench.add(0, 30)
    workers = [start(bench, name=name) for name in ("w", "v")]
    addresses = [address for _, address in workers]
    wait_for("30 texts", lambda: bench.client.xlen("texts:embeddings") == 30)
    nobody = f"127.0.0.1:{free_port()}"
    run = [bench.binary, "top", "--once", "--interval", "0.3"]
    done = subprocess.run([*run, *addresses], capture_output=True, text=True, timeout=60,
                          check=True)
    table = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in table] == ["WORKER", *addresses, "all"], done.stdout
    assert all(row[1] == "ready" and len(row) == 14 and row[11].endswith("%")
               for row in table[1:3]), done.stdout
    done = subprocess.run([*run, nobody, addresses[0]], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 69 and f"{nobody[:22]:22} refused" in done.stdout, done.stdout

    for arguments, code, text in ((addresses[:1], 0, "ok"), ((nobody,), 69, "refused"),
                                  (("--live", addresses[1]), 0, "ok"), (("9464",), 64, "")):
        done = subprocess.run([bench.binary, "probe", *arguments], capture_output=True, text=True,
                              timeout=60, check=False)
        assert done.returncode == code and text in done.stdout, (arguments, done)
    bench.server.kill()
    wait_for("not ready", lambda: subprocess.run([bench.binary, "probe", addresses[0]],
                                                 stdout=subprocess.DEVNULL,
                                                 check=False).returncode == 69)

    wait_for("a lag that is not known", lambda: not any(
        name.startswith("embedmill_source_lag{") for name in values(addresses[0])), 15)

    ours, theirs = pty.openpty()
    top = subprocess.Popen([bench.binary, "top", "--interval", "0.2", addresses[0]],
                           stdin=theirs, stdout=theirs, stderr=theirs)
    bench.processes.append(top)
    seen = b""
    while seen.count(b"\x1b[H") < 3 or b"waiting" not in seen:
        assert select.select([ours], [], [], 30)[0], f"nothing for 30 s after {seen[-2000:]}"
        seen += os.read(ours, 65536)
    top.send_signal(signal.SIGINT)
    assert top.wait(timeout=30) == 0
    assert os.read(ours, 65536).endswith(b"\x1b[?25h\x1b[?1049l")

    # Six lines: the head, two workers, how many are left out, all, and where the cursor is.
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 6, 120, 0, 0))
    top = subprocess.Popen([bench.binary, "top", "--interval", "0.2", *[addresses[0]] * 9],
                           stdin=theirs, stdout=theirs, stderr=theirs)
    bench.processes.append(top)
    seen = b""
    while b"... and 7 more" not in seen:
        assert select.select([ours], [], [], 30)[0], f"nothing for 30 s after {seen[-2000:]}"
        seen += os.read(ours, 65536)
    top.send_signal(signal.SIGINT)
    assert top.wait(timeout=30) == 0

    # One that serves has a second line.
    with serving(get(addresses[0], "/metrics")[1]) as address:
        top = subprocess.Popen([bench.binary, "top", "--interval", "0.2", *[address] * 9],
                               stdin=theirs, stdout=theirs, stderr=theirs)
        bench.processes.append(top)
        seen, more = b"", None
        while not more: # what the one before has printed may come first
            assert select.select([ours], [], [], 30)[0], f"nothing for 30 s after {seen[-2000:]}"
            seen += os.read(ours, 65536)
            more = re.search(rb"  http .*?and (\d+) more", seen, re.DOTALL)
        assert more[1] == b"8", seen
        top.send_signal(signal.SIGINT)
        assert top.wait(timeout=30) == 0

    with socket.create_server(("127.0.0.1", 0)) as silent: # Ctrl-C does not wait for an answer
        top = subprocess.Popen([bench.binary, "top", "--interval", "3600",
                                f"127.0.0.1:{silent.getsockname()[1]}"],
                               stdin=theirs, stdout=theirs, stderr=theirs)
        bench.processes.append(top)
        silent.accept()
        since = time.monotonic()
        top.send_signal(signal.SIGINT)
        assert top.wait(timeout=30) == 0 and time.monotonic() - since < 3
    os.close(ours)
    os.close(theirs)


def case_addresses(bench):
    """All addresses are those of both families; a name is asked at each that it stands for."""
    bench.start_server()
    start(bench, "--metrics-listen", ":0", name="all")
    port = re.findall(r'"serving metrics","listen":"[^"]*:(\d+)"', bench.log("all"))[-1]
    assert get(f"127.0.0.1:{port}", "/livez")[0] == 200
    if socket.has_dualstack_ipv6():
        assert get(f"[::1]:{port}", "/livez")[0] == 200
    else:
        print("this machine has no IPv6: ::1 was not asked")
    _, address = start(bench, name="one")
    for where in (f"localhost:{port}", f"localhost:{address.rsplit(':', 1)[1]}"):
        done = subprocess.run([bench.binary, "probe", "--live", where], capture_output=True,
                              text=True, timeout=60, check=False)
        assert done.returncode == 0, done


def query(port, expression):
    text = urllib.parse.urlencode({"query": expression})
    found = json.loads(get(f"127.0.0.1:{port}", f"/api/v1/query?{text}")[1])
    assert found["status"] == "success", (expression, found)
    return [float(row["value"][1]) for row in found["data"]["result"]]


MONITORING = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts",
                          "deploy", "monitoring")


def read(*words):
    with open(os.path.join(MONITORING, *words), encoding="utf-8") as f:
        return f.read()


def panel_expressions():
    """Those of the dashboard, as Grafana would ask them of the last 15 seconds."""
    found = [t["expr"] for panel in json.loads(read("dashboard.json"))["panels"]
             for t in panel.get("targets", [])]
    assert len(found) > 30
    return [re.sub(r"\$(job|instance)\b", ".*", text).replace("$__rate_interval", "15s")
            for text in found]


def check_names(address):
    """Dashboard, alerts and the manual name only what a worker tells, and the manual all of it;
    compose's Prometheus looks at all its services that have metrics."""
    known = set(re.findall(r"^# TYPE (\w+)", get(address, "/metrics")[1], re.M))
    known.add("embedmill_group_lag") # of Kafka's only
    told = set(re.findall(r"`(embedmill_\w+)", read("..", "..", "..", "docs", "operations.md")))
    unknown = {name for name in told if re.sub("_(bucket|sum|count)$", "", name) not in known}
    assert not unknown and {n for n in known if n.startswith("embedmill_")} <= told, (unknown, told)
    for expression in panel_expressions() + re.findall(r"expr: (.*)", read("alerts.yml")):
        for name in re.findall(r"\b(?:embedmill|process)_\w+", expression):
            assert re.sub("_(bucket|sum|count)$", "", name) in known, (name, expression)
    services = set(re.findall(r"^  ([\w-]+):\n    <<: \*worker$",
                              read("..", "..", "..", "docker-compose.yml"), re.M))
    names = re.search(r"names: \[(.*?)\]", read("prometheus.yml"), re.S).group(1)
    services.discard("postgres-schema") # it ends at once
    assert len(services) > 5 and set(re.split(r",\s*", names)) == services, (names, services)


def start_prometheus(bench, addresses):
    """Its port. It scrapes every second and has the alerts' rules."""
    with open(os.path.join(bench.folder, "prometheus.yml"), "w", encoding="utf-8") as f:
        json.dump({"global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                   "rule_files": [os.path.abspath(os.path.join(MONITORING, "alerts.yml"))],
                   "scrape_configs": [{"job_name": "embedmill",
                                       "static_configs": [{"targets": addresses}]}]}, f)
    port = free_port()
    bench.processes.append(subprocess.Popen(
        ["prometheus", f"--config.file={bench.folder}/prometheus.yml",
         f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={bench.folder}/tsdb"],
        stdout=subprocess.DEVNULL,
        stderr=open(os.path.join(bench.folder, "prometheus.log"), "wb")))
    return port


def rules(port):
    """[(name, expression, state, health, last error)]"""
    found = json.loads(get(f"127.0.0.1:{port}", "/api/v1/rules?type=alert")[1])
    return [(rule["name"], rule["query"], rule["state"], rule["health"], rule.get("lastError"))
            for group in found["data"]["groups"] for rule in group["rules"]]


def is_active(port, name):
    return any(rule[0] == name and rule[2] in ("pending", "firing") for rule in rules(port))


def make_traffic(bench, address):
    """Messages, one of which becomes a dead letter, and requests, one of them wrong."""
    bench.client.xadd("texts", {"body": b"\x81"})
    bench.add(int(time.time() * 1e6), 3)
    url = f"http://{address}/v1/embeddings"
    for body in ({"input": "a ferry"}, {"input": "ferry " * 700}, {"input": 7}):
        try:
            with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=60) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            assert error.code == 400, error.read()


def empty_ones(port, expressions):
    """Those that give no number. What divides by nothing that came gives NaN."""
    return [text for text in expressions
            if not [value for value in query(port, text) if value == value]]


def case_prometheus(bench):
    """A real Prometheus scrapes two workers of a group and adds them up; under traffic every
    panel of the dashboard shows something, every alert has its series, and those that should
    react do."""
    bench.start_server()
    # Both serve over HTTP, too, so that there is every metric.
    workers = [start(bench, "--http-listen", "127.0.0.1:0", name=name) for name in ("w", "v")]
    addresses = [address for _, address in workers]
    http = re.search(r'"serving embeddings","listen":"([^"]*)"', bench.log("w")).group(1)
    port = start_prometheus(bench, addresses)

    def is_up():
        try:
            return query(port, "sum(up)") == [2]
        except (urllib.error.URLError, ValueError): # it is still starting
            return False

    wait_for("two targets up", is_up, 60)
    bench.add(0, 50)
    wait_for("50 texts", lambda: query(port, "sum(embedmill_texts_embedded_total)") == [50], 60)
    wait_for("one build", lambda: query(port, "count(count by (fingerprint, kernels) "
                                              "(embedmill_build_info))") == [1])
    check_names(addresses[0])
    assert query(port, "max(changes(process_start_time_seconds[1m]))") == [0]

    panels, left = panel_expressions(), None
    # What all alerts look at is there, but for what a broker that is away and overload bring.
    series = {text for _, expression, _, _, _ in rules(port) for text in
              re.findall(r"\b(?:embedmill|process|up)\w*(?:\{[^}]*\})?", expression)
              if "embedmill_" in text and not re.search(r"424|503|unavailable", text)}
    end = time.monotonic() + 90
    while left is None or left:
        assert time.monotonic() < end, f"nothing to show for {left}"
        make_traffic(bench, http)
        left = empty_ones(port, panels) + empty_ones(port, series)
        time.sleep(0.5)
    wait_for("the alert about dead letters", lambda: is_active(port, "EmbedmillErrorRate"), 60)
    wait_for("all rules evaluated", lambda: all(rule[3] == "ok" for rule in rules(port)), 60)
    assert not is_active(port, "EmbedmillDown") and not is_active(port, "EmbedmillUndeliverable")
    bench.stop(workers[0][0])
    wait_for("the alert about the worker that is gone", lambda: is_active(port, "EmbedmillDown"),
             60)
    bench.stop(workers[1][0])


def main():
    if not shutil.which("promtool") or not shutil.which("prometheus"):
        sys.exit("promtool and prometheus are needed: scripts/install-packages test")
    cases = {name[5:]: f for name, f in globals().items() if name.startswith("case_")}
    for name in sys.argv[2:] or cases:
        with Bench(sys.argv[1]) as bench:
            try:
                cases[name](bench)
            except BaseException:
                for log in os.listdir(bench.folder):
                    if log.startswith("log-"):
                        print(f"--- {log}\n{bench.log(log[4:])}", file=sys.stderr)
                print(f"case {name} failed", file=sys.stderr)
                raise
        print(f"{name}: ok")


if __name__ == "__main__":
    main()
