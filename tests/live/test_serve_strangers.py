#!/usr/bin/env python3
"""`embedmill serve` and clients that cost more than they should: ten thousand idle connections,
slow readers, slow writers, half-closed connections, pipelines. Memory stays within bounds, and
probes and queries are answered all the while.

Usage: test_serve_strangers.py EMBEDMILL [CASE ...]
"""
import json
import re
import resource
import socket
import subprocess
import tempfile
import time

from serve_rig import DEADLINE, EMBEDMILL, SMALL, Server, receive, run_cases, send, wait_for

IDLE = 10000


def resident(server):
    """MiB, of which the mapped model is none."""
    with open(f"/proc/{server.process.pid}/status", encoding="utf-8") as f:
        return int(re.search(r"RssAnon:\s+(\d+)", f.read())[1]) / 1024


def cpu_seconds(server):
    with open(f"/proc/{server.process.pid}/stat", encoding="utf-8") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def answers_soon(server, seconds=5):
    """A probe and a query, by connections of their own."""
    began = time.monotonic()
    assert server.ask("/livez").status == 200
    assert server.embed("a query between them").status == 200
    took = time.monotonic() - began
    assert took < seconds, took


def closed(s):
    """Whether the server has closed it, without waiting for that."""
    s.setblocking(False)
    try:
        return s.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        s.settimeout(DEADLINE)


def case_idle():
    """Ten thousand connections that were answered and keep quiet; of more than may be there the one
    that has been idle for longest is closed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n = min(IDLE, (hard - 500) // 2) # the server allows for two files each
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, n + 500)), hard))
    idle = []
    with Server("--http-connections", str(n), model=SMALL) as server:
        server.embed("warm")
        before = resident(server)
        for _ in range(n - 20):
            idle.append(server.connect())
            send(idle[-1], "/livez")
            assert receive(idle[-1]).status == 200
        per_connection = (resident(server) - before) * 1024 / len(idle)
        assert per_connection < 40, f"{per_connection:.1f} KiB for a connection"
        answers_soon(server)
        spent = cpu_seconds(server)
        time.sleep(2)
        spent = cpu_seconds(server) - spent
        assert spent < 0.2, f"{spent} s of CPU in two seconds without a request"
        began = time.monotonic()
        for i in range(50):
            assert server.embed(f"query {i}").status == 200
        took = (time.monotonic() - began) / 50
        assert took < 0.5, took
        assert not any(closed(s) for s in idle[100:])
        more = [server.connect() for _ in range(60)]
        for s in more:
            send(s, "/livez")
            assert receive(s).status == 200
        wait_for("the oldest to be closed", lambda: closed(idle[0]))
        assert not any(closed(s) for s in idle[200:]) and not any(closed(s) for s in more)
        print(f"  {len(idle)} connections, {per_connection:.1f} KiB each, a query in "
              f"{took * 1e3:.1f} ms", flush=True)
        for s in idle + more:
            s.close()
        wait_for("no connection", lambda: server.ask("/livez").status == 200)
        answers_soon(server)
        server.stop()


def case_files():
    """More connections than the system allows open files: the limit is raised, or a sentence says
    what to do."""
    def allow(soft, hard):
        return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with Server("--http-connections", "300", model=SMALL, preexec_fn=allow(64, 4096)) as server:
        open_ones = [server.connect() for _ in range(290)]
        answers_soon(server)
        for s in open_ones:
            s.close()
    out = subprocess.run([EMBEDMILL, "serve", "--model", SMALL, "--http-listen", "127.0.0.1:0",
                          "--http-connections", "300"], preexec_fn=allow(400, 400),
                         capture_output=True, text=True, check=False)
    assert out.returncode == 78 and "http.connections" in out.stderr, out


def case_slow_writers():
    """Half a header, or a body that comes a byte now and then: closed in time, and in nobody's way
    until then."""
    with Server("--http-connections", "200", model=SMALL) as server:
        heads = [server.connect() for _ in range(50)]
        for s in heads:
            s.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost:")
        bodies = [server.connect() for _ in range(50)]
        for s in bodies:
            s.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{")
        began, before = time.monotonic(), resident(server)
        while time.monotonic() - began < 45 and not all(map(closed, heads + bodies)):
            for s in heads + bodies:
                try:
                    s.sendall(b" ")
                except OSError:
                    pass
            answers_soon(server)
            time.sleep(0.5)
            if time.monotonic() - began < 8:
                assert not any(map(closed, heads + bodies))
        assert all(map(closed, heads)), "half a header for 45 seconds"
        assert all(map(closed, bodies)), "half a body for 45 seconds"
        assert resident(server) < before + 16
        server.stop()


def case_without_a_key():
    """Bodies of those who have no key take none of the memory that there is for bodies."""
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
        keys.write("a-key-of-ours\n")
        keys.flush()
        with Server("--http-key-file", keys.name, model=SMALL) as server:
            strangers, n = [], 8 << 20
            before = resident(server)
            for i in range(12): # of which eight would fill it
                strangers.append(server.connect())
                strangers[-1].sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n%s"
                                      b"Content-Length: %d\r\n\r\n%s" %
                                      (b"Authorization: Bearer none\r\n" if i % 2 else b"", n,
                                       b" " * (n - 1)))
            time.sleep(1)
            answer = server.ask("/v1/embeddings", {"input": ["a text of ours"] * 400},
                                ["Authorization: Bearer a-key-of-ours"])
            assert answer.status == 200, answer.body
            assert resident(server) < before + 32, resident(server)
            for s in strangers:
                s.sendall(b" ")
                assert receive(s).status == 401
            server.stop()


def case_slow_readers():
    """Clients that ask for much and read nothing: what waits for them is bounded, others are told
    to come again, and once they are gone all is as before."""
    text = ["the same text, which is in the cache"] * 4096
    body = json.dumps({"input": text})
    with Server("--http-connections", "200", model=SMALL) as server:
        assert server.ask("/v1/embeddings", {"input": text}).status == 200
        size = len(server.ask("/v1/embeddings", {"input": text}).body)
        slow, statuses = [], set()
        for _ in range(100): # of 20 MB each
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.settimeout(DEADLINE)
            host, port = server.address.rsplit(":", 1)
            s.connect((host, int(port)))
            s.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" %
                      (len(body), body.encode()))
            slow.append(s)
            statuses.add(int(s.recv(12).split()[1]))
            if len(slow) % 10 == 0:
                assert server.ask("/livez").status == 200
                assert resident(server) < 700, (len(slow), resident(server))
        assert statuses == {200, 503}, (statuses, size)
        refused = server.embed("one more")
        assert refused.status == 503 and refused.headers["retry-after"], refused.body
        assert refused.json()["error"]["code"] == "answers_not_taken"
        for s in slow:
            s.close()
        wait_for("an answer", lambda: server.embed("afterwards").status == 200)
        server.stop()


def case_pipeline():
    """Many requests at once on one connection are answered in their order, wrong ones, too, and
    also when the client has closed its side; of half a request nothing is answered."""
    with Server(model=SMALL) as server:
        want = [server.embed(f"text {i}").vectors() for i in range(60)]
        for end in (False, True):
            with server.connect() as s:
                for i in range(60):
                    send(s, "/v1/embeddings", {"input": f"text {i}"})
                    send(s, "/nowhere")
                    send(s, "/v1/embeddings", b"{")
                if end:
                    s.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n"
                              b"Content-Length: 9\r\n\r\n{")
                    s.shutdown(socket.SHUT_WR)
                rest = b""
                for i in range(60):
                    answers = []
                    for _ in range(3):
                        answers.append(receive(s, rest))
                        rest = answers[-1].rest
                    assert [a.status for a in answers] == [200, 404, 400], (end, i)
                    assert answers[0].vectors() == want[i]
                if end:
                    assert rest == b"" and s.recv(1) == b""
        before = resident(server)
        for _ in range(300): # asked, and gone before the answer, in either way
            with server.connect() as s:
                send(s, "/v1/embeddings", {"input": "gone"})
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        answers_soon(server)
        assert resident(server) < before + 8
        server.stop()


if __name__ == "__main__":
    run_cases(globals())
