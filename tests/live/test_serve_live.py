#!/usr/bin/env python3
"""`embedmill serve` by raw sockets: vectors, errors, limits, keys, drain, clients that misbehave.

Usage: test_serve_live.py EMBEDMILL [CASE ...]
"""
import gzip
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

from serve_rig import (DEADLINE, EMBEDMILL, LONG, RERANKER, SMALL, Server, floats, receive,
                       reference, run_cases, scrape, send, wait_for)


def case_vectors():
    """Whatever form is asked for, they are the bits of `embedmill embed`."""
    texts = ["The ferry leaves at seven.", "Die Fähre fährt um sieben.", LONG, "x"]
    want = reference(texts)
    with Server() as server:
        answer = server.embed(texts)
        assert answer.vectors() == want
        assert answer.json()["model"] == "embeddinggemma-300m"
        usage = answer.json()["usage"]
        assert usage["prompt_tokens"] == usage["total_tokens"] > 4 * 10
        assert [server.embed(text).vectors()[0] for text in texts] == want
        packed = server.embed(texts, encoding_format="base64").vectors()
        as_floats = [list(struct.unpack("<768f", struct.pack("<768f", *v))) for v in want]
        assert [floats(text) for text in packed] == as_floats
        assert server.embed(texts, dimensions=256).vectors() == reference(texts, "--dim", "256")
        assert server.embed(texts, dimensions=768).vectors() == want
        query = reference(texts, "--prompt", "query")
        for field in ({"prompt_name": "query"}, {"input_type": "search_query"},
                      {"task": "retrieval.query"}):
            assert server.embed(texts, **field).vectors() == query, field
        titled = reference([json.dumps({"text": texts[0], "title": "Ferries"})])
        assert server.embed(texts[0], title="Ferries").vectors() == titled
        assert server.embed(texts[0], user="me", unknown={"a": [1]}).vectors() == want[:1]
        # Of token ids those that a text has are embedded as the text is, and bos and eos are
        # added where they are missing.
        ids = [[2, 651, 1], [651]]
        both = server.embed(ids).vectors()
        assert both[0] == both[1] != want[0]
        assert server.embed(ids[1]).vectors() == both[:1]
        assert server.embed([651.0], dimensions=768.0).vectors() == both[:1]
        server.stop()


def case_truncation():
    """A text that is cut says so; one that must not be cut is refused."""
    long = LONG * 20
    with Server() as server:
        answer = server.embed(["short", long])
        assert [d.get("truncated") for d in answer.json()["data"]] == [None, True]
        assert answer.headers["x-embedding-truncated"] == "1"
        assert 2048 < answer.json()["usage"]["prompt_tokens"] < 2080
        refused = server.embed(["short", long], truncate=False)
        assert refused.status == 400, refused.body
        assert "text 1 has" in refused.json()["error"]["message"]
        assert server.embed("short", truncate=False).status == 200
    with Server("--too-long", "error") as server:
        assert server.embed(long).json()["error"]["code"] == "text_too_long"


def case_errors():
    """Each in the form of the dialect, with the field at fault; never with a text."""
    cases = [
        (b"{", 400, None, "bad_json"), (b"", 400, None, "bad_json"), (b"[]", 400, None, None),
        ({}, 400, "input", None), ({"input": None}, 400, "input", None),
        ({"input": []}, 400, "input", None), ({"input": ""}, 400, "input", None),
        ({"input": ["a", ""]}, 400, "input", None), ({"input": 1.5}, 400, "input", None),
        ({"input": {"a": "secret"}}, 400, "input", None),
        ({"input": ["a", 1]}, 400, "input", None), ({"input": [1, "a"]}, 400, "input", None),
        ({"input": [[]]}, 400, "input", None), ({"input": [-1]}, 400, "input", None),
        ({"input": [262144]}, 400, "input", None), ({"input": [5.5]}, 400, "input", None),
        ({"input": [1e300]}, 400, "input", None), (b'{"input": 1e400}', 400, None, "bad_json"),
        ({"input": "a", "dimensions": 128.5}, 400, "dimensions", None),
        ({"input": [[[1]]]}, 400, "input", None),
        ({"input": "a", "model": "gpt-5"}, 404, "model", "model_not_found"),
        ({"input": "a", "model": 1}, 400, "model", None),
        ({"input": "a", "dimensions": 100}, 400, "dimensions", None),
        ({"input": "a", "dimensions": "768"}, 400, "dimensions", None),
        ({"input": "a", "encoding_format": "hex"}, 400, "encoding_format", None),
        ({"input": "a", "prompt_name": "nope"}, 400, "prompt_name", "unknown_prompt"),
        ({"input": "a", "truncate": 3}, 400, "truncate", None),
        ({"input": "a", "normalize": False}, 400, "normalize", None),
        ({"input": "a", "title": 3}, 400, "title", None),
        ({"input": ["a"] * 4097}, 400, "input", "too_many_texts"),
        ({"input": "a" * (1 << 21)}, 413, "input", "text_too_large"),
        (b'{"input": "a", "input": "b"}', 400, None, "duplicate_field"),
        (b'{"input": "a", "other": [{"b": 1, "c": 2, "\\u0062": 3}]}', 400, None,
         "duplicate_field"),
        (b"\xef\xbb\xbf{", 400, None, "bad_json"),
    ]
    with Server() as server:
        for body, status, param, code in cases:
            answer = server.ask("/v1/embeddings", body)
            assert answer.status == status, (body, answer.status, answer.body)
            error = answer.json()["error"]
            assert (error["param"], error["code"]) == (param, code), (body, error)
            assert error["type"] and "secret" not in error["message"]
        for name in ("google/EmbeddingGemma-300M", "embeddinggemma-300m"):
            assert server.embed("a", model=name).status == 200
        # As on a queue: a byte order mark says nothing.
        assert server.ask("/v1/embeddings", b"\xef\xbb\xbf" + b'{"input": "a"}').vectors() == \
            server.embed("a").vectors()
        for path in ("/v1/embeddings", "/embed", "/api/embed", "/tokenize"):
            packed = server.ask(path, gzip.compress(b'{"input": "a", "inputs": "a"}'),
                                ["Content-Encoding: gzip"])
            assert packed.status == 415 and packed.headers["accept-encoding"] == "identity"
            assert "Content-Encoding" in str(packed.json()["error"]), packed.body
        assert server.ask("/v1/embeddings", {"input": "a"},
                          ["Content-Encoding: identity"]).status == 200
        assert server.ask("/nope").status == 404
        wrong = server.ask("/v1/embeddings")
        assert wrong.status == 405 and wrong.headers["allow"] == "POST"
        models = server.ask("/v1/models").json()
        assert models["data"][0]["id"] == "embeddinggemma-300m"
        for name in ("embeddinggemma-300m", "google/EmbeddingGemma-300M",
                     "google%2Fembeddinggemma-300m"):
            assert server.ask("/v1/models/" + name).json() == models["data"][0], name
        for name in ("gpt-5", "embeddinggemma-300", "x" * 5000):
            unknown = server.ask("/v1/models/" + name)
            assert unknown.status == 404, name
            assert unknown.json()["error"]["code"] == "model_not_found", name
        assert server.ask("/v1/models/").json()["error"]["code"] is None
        assert server.ask("/v1/models/x", {}).headers["allow"] == "GET"
        assert server.ask("/health").status == server.ask("/livez").status == 200
        assert server.ask("/health", method="HEAD").status == 200
        assert "secret" not in server.log()
    with Server("--http-models", "alias,*") as server:
        assert server.embed("a", model="whatever").json()["model"] == "alias"


def case_dialects():
    """text-embeddings-inference and ollama: their fields, codes, bodies; bytes without text."""
    texts = ["The ferry leaves at seven.", "x"]
    want = reference(texts)
    with Server() as server:
        assert server.ask("/embed", {"inputs": texts}).json() == want
        assert server.ask("/embed", {"inputs": texts[0], "normalize": True}).json() == want[:1]
        assert server.ask("/embed", {"inputs": texts, "dimensions": 128}).json() == \
            reference(texts, "--dim", "128")
        assert server.ask("/embed", {"inputs": texts[0], "prompt_name": "query"}).json() == \
            reference(texts[:1], "--prompt", "query")
        for body, status, kind in (({"inputs": []}, 400, "Empty"), ({"inputs": ""}, 400, "Empty"),
                                   ({}, 422, "Tokenizer"), ({"inputs": 3}, 422, "Tokenizer"),
                                   ({"inputs": "a", "normalize": False}, 422, "Tokenizer"),
                                   ({"inputs": "a", "truncation_direction": "Left"}, 422,
                                    "Tokenizer"),
                                   ({"inputs": LONG * 20, "truncate": False}, 413, "Validation"),
                                   ({"inputs": ["a"] * 4097}, 413, "Validation")):
            answer = server.ask("/embed", body)
            assert (answer.status, answer.json()["error_type"]) == (status, kind), answer.body
        tokens = server.ask("/tokenize", {"inputs": texts}).json()
        assert [t["special"] for t in tokens[1]] == [True, False, True]
        ids = [t["id"] for t in server.ask(
            "/tokenize", {"inputs": texts[0], "prompt_name": "document"}).json()[0]]
        assert server.embed(ids).vectors() == want[:1] # the same text, tokenised by the client
        bare = server.ask("/tokenize", {"inputs": "x", "add_special_tokens": False}).json()[0]
        assert [t["id"] for t in bare] == [tokens[1][1]["id"]]
        info = server.ask("/info").json()
        assert info["default_prompt"] == "document" and info["dim"] == 768
        assert info["prompts"]["query"] == "task: search result | query: "
        assert info["max_input_length"] == 2048 and info["max_client_batch_size"] == 4096
        ollama = server.ask("/api/embed", {"model": "embeddinggemma-300m", "input": texts}).json()
        assert ollama["embeddings"] == want and ollama["prompt_eval_count"] > 10
        assert list(server.ask("/api/embed", {"input": []}).json()) == ["error"]
        octets = server.ask("/v1/embeddings", {"input": texts},
                            ["Accept: application/octet-stream"])
        assert octets.headers["x-embedding-dim"] == "768"
        assert octets.headers["x-embedding-dtype"] == "<f4"
        assert octets.body == b"".join(struct.pack("<768f", *v) for v in want)
        bits = server.ask("/embed", {"inputs": texts, "dtype": "b1", "dimensions": 128},
                          ["Accept: application/octet-stream"])
        assert len(bits.body) == 2 * 16 and bits.headers["x-embedding-dtype"] == "bits"
        packed = server.ask("/v1/embeddings", {"input": texts, "dtype": "f2"},
                            ["Accept: application/msgpack"])
        assert packed.headers["content-type"] == "application/msgpack"
        assert b"model_fingerprint" in packed.body and len(packed.body) < 2 * 1536 + 300


def case_limits():
    """Bodies, headers and connections have an end; what is odd but right is served."""
    with Server("--http-body-size", "64KiB", "--http-connections", "8", model=SMALL) as server:
        assert server.ask("/v1/embeddings", b"x" * 70000).status == 413
        assert server.ask("/v1/embeddings", {"input": "a"},
                          ["X-Long: " + "y" * 20000]).status == 431
        with server.connect() as s: # far too large: answered before it is sent
            s.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n"
                      b"Content-Length: 999999999\r\n\r\n")
            assert receive(s).status == 413
        with server.connect() as s: # in chunks, a byte at a time
            s.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n"
                      b"Transfer-Encoding: chunked\r\n\r\n")
            for c in b'{"input":"a"}':
                s.sendall(b"1\r\n%c\r\n" % c)
            s.sendall(b"0\r\n\r\n")
            assert receive(s).status == 200
        with server.connect() as s: # two at once
            for text in ("one", "two"):
                send(s, "/v1/embeddings", {"input": text})
            first = receive(s)
            second = receive(s, first.rest)
            assert [first.status, second.status] == [200, 200]
            assert first.body != second.body
        with server.connect() as s: # half-closed
            send(s, "/v1/embeddings", {"input": "half"})
            s.shutdown(socket.SHUT_WR)
            answer = receive(s)
            assert answer and answer.status == 200
        with server.connect() as s: # 1.0 without keep-alive
            s.sendall(b"POST /v1/embeddings HTTP/1.0\r\nContent-Length: 13\r\n\r\n"
                      b'{"input":"a"}')
            assert receive(s).status == 200 and s.recv(1) == b""
        idle = [server.connect() for _ in range(40)]
        for s in idle:
            s.sendall(b"POST /v1/embeddings HTTP/1.1\r\n")
        assert server.embed("still served").status == 200
        for s in idle:
            s.close()
        server.stop()


def case_keys():
    """Without one of the keys only health is told."""
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
        keys.write("# staff\nalpha-key-1\n\n  beta-key-22 \n")
        keys.flush()
        with Server("--http-key-file", keys.name, model=SMALL) as server:
            for header in ((), ["Authorization: Bearer alpha-key"], ["Authorization: alpha-key-1"],
                           ["Authorization: Bearer # staff"], ["Authorization: Bearer "]):
                answer = server.ask("/v1/embeddings", {"input": "a"}, header)
                assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["error"]["code"] == "invalid_api_key"
            for key in ("alpha-key-1", "beta-key-22"):
                header = [f"Authorization: Bearer {key}"]
                assert server.ask("/v1/embeddings", {"input": "a"}, header).status == 200
                assert server.ask("/v1/models", None, header).status == 200
            assert server.ask("/v1/models").status == 401
            assert server.ask("/health").status == 200
            assert "alpha-key-1" not in server.log()
    out = subprocess.run([EMBEDMILL, "serve", "--model", SMALL, "--http-listen", "127.0.0.1:0",
                          "--http-key-file", "/dev/null"], capture_output=True, text=True,
                         check=False)
    assert out.returncode == 78 and "holds no key" in out.stderr, out


def case_unix():
    """A Unix socket, also where a killed server has left its file."""
    folder = tempfile.mkdtemp(prefix="embedmill-unix-")
    try:
        path = f"unix:{folder}/s"
        with Server(listen=path, model=SMALL) as server:
            assert server.embed("a").status == 200
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
        with Server(listen=path, model=SMALL) as server:
            assert server.embed("a").status == 200
            out = subprocess.run([EMBEDMILL, "serve", "--model", SMALL, "--http-listen", path],
                                 capture_output=True, text=True, check=False)
            assert out.returncode == 69 and "another worker" in out.stderr, out
            server.stop()
        assert not os.path.exists(f"{folder}/s")
    finally:
        shutil.rmtree(folder)


def case_drain():
    """What was taken is answered, what comes then is refused, and the server ends."""
    with Server("--drain-timeout", "100s", model=SMALL) as server:
        with server.connect() as busy, server.connect() as late:
            send(busy, "/v1/embeddings", {"input": [f"{i} {LONG}" for i in range(60)]})
            time.sleep(0.3)
            server.process.terminate()
            wait_for("the drain", lambda: "stopping" in server.log())
            send(late, "/v1/embeddings", {"input": "late"})
            refused = receive(late)
            assert refused.status == 503 and refused.headers["connection"] == "close"
            assert refused.json()["error"]["code"] == "draining"
            answer = receive(busy)
            assert answer.status == 200 and len(answer.vectors()) == 60
        assert server.process.wait(DEADLINE) == 0
    with Server("--drain-timeout", "300ms", model=SMALL) as server:
        with server.connect() as busy:
            send(busy, "/v1/embeddings", {"input": [f"{i} {LONG}" for i in range(1000)]})
            time.sleep(0.3)
            server.process.terminate()
            assert receive(busy).status == 503
        assert server.process.wait(DEADLINE) == 75


def case_overload():
    """More than may wait is refused, and Retry-After is when it would have been taken."""
    with Server("--http-queue-tokens", "4000", "--cache-memory", "0", model=SMALL) as server:
        statuses, lock = [], threading.Lock()

        def ask(i):
            answer = server.embed([f"{i} {n} {LONG}" for n in range(10)])
            with lock:
                statuses.append((answer.status, answer.headers.get("retry-after")))
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [int(after) for status, after in statuses if status == 429]
        assert all(status in (200, 429) for status, _ in statuses), statuses
        assert refused and len(refused) < 12 and 1 <= min(refused) <= max(refused) <= 30, statuses
        assert server.embed("afterwards").status == 200
    with Server("--http-timeout", "400ms", "--cache-memory", "0", model=SMALL) as server:
        answer = server.embed([f"{n} {LONG}" for n in range(1000)])
        assert answer.status == 503 and answer.json()["error"]["code"] == "timeout", answer.body


def case_gone():
    """Texts of clients that are gone are not embedded: who comes then does not wait for them."""
    # Room for all of them: whether the first are done when the last one comes is up to the machine.
    with Server("--cache-memory", "0", "--http-queue-tokens", "1000000", model=SMALL) as server:
        texts = [f"{n} {LONG}" for n in range(40)]
        began = time.monotonic()
        assert server.embed(texts).status == 200
        whole = time.monotonic() - began
        gone = [server.connect() for _ in range(10)]
        for i, s in enumerate(gone):
            send(s, "/v1/embeddings", {"input": [f"{i} {text}" for text in texts]})
        time.sleep(0.2)
        for s in gone:
            s.close()
        began = time.monotonic()
        answer = server.embed(["last"] + [f"z {text}" for text in texts])
        assert answer.status == 200, (answer.status, answer.body[:300])
        took = time.monotonic() - began
        assert took < 4 * whole + 1, (took, whole) # ten lists would have been ten times as much
        server.stop()


def case_beside():
    """`run --http-listen`: messages and requests by the same threads, cache and model."""
    lines = [f"{i} {LONG}" for i in range(200)]
    with Server("--source", "stdin", "--sink", "stdout", "--output-format", "json", model=SMALL,
                command="run", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        answers = []
        reader = threading.Thread(
            target=lambda: answers.extend(json.loads(x) for x in server.process.stdout))
        reader.start()
        want = server.embed("a query beside them").vectors()
        server.process.stdin.write(("\n".join(lines) + "\n").encode())
        server.process.stdin.flush()
        wait_for("the first messages", lambda: answers)
        n_before = len(answers)
        for _ in range(5): # while messages keep all threads busy
            assert server.embed("a query beside them").vectors() == want
        many = server.embed([f"a list beside them {i}" for i in range(300)])
        assert len(many.vectors()) == 300
        assert n_before < 200 # it was not over before
        wait_for("all messages", lambda: len(answers) == 200)
        # What the queue has embedded is in the cache that both share.
        assert server.embed(lines[7]).vectors()[0] == answers[7]["embedding"]
        server.process.stdin.close()
        assert server.process.wait(DEADLINE) == 0, server.log()
        reader.join()
    busy = socket.create_server(("127.0.0.1", 0))
    try:
        out = subprocess.run([EMBEDMILL, "run", "--model", SMALL, "--source", "stdin", "--sink",
                              "stdout", "--http-listen", "127.0.0.1:%d" % busy.getsockname()[1]],
                             input="x\n", capture_output=True, text=True, check=False)
        assert out.returncode == 69 and "in use" in out.stderr and not out.stdout, out
    finally:
        busy.close()


def case_watched():
    """What was asked is counted, logged without a text, and shown by top."""
    with Server("--metrics-listen", "127.0.0.1:0", "--http-access-log", model=SMALL) as server:
        for text in ("secret one", "secret one", ["secret two", "secret three"]):
            assert server.embed(text).status == 200
        server.embed("")
        server.ask("/nowhere/secret")
        server.embed("secret " + LONG * 20)
        wait_for("all requests", lambda: server.log().count('"msg":"request"') == 6)
        now, page, address = scrape(server)
        assert now['embedmill_http_requests_total{route="/v1/embeddings",code="200"}'] == 4
        assert now['embedmill_http_requests_total{route="/v1/embeddings",code="400"}'] == 1
        assert now['embedmill_http_requests_total{route="other",code="404"}'] == 1
        assert now["embedmill_http_texts_total"] == 5
        assert now["embedmill_http_cached_total"] == 1
        assert now["embedmill_http_truncated_total"] == 1
        for name in ("request", "wait"):
            assert now[f'embedmill_http_{name}_seconds_count{{lane="query"}}'] == 3
            assert now[f'embedmill_http_{name}_seconds_count{{lane="list"}}'] == 1
        assert now['embedmill_http_slice_texts_total{lane="query"}'] == 4
        assert now['embedmill_http_slices_total{lane="list"}'] == 1
        assert now["embedmill_http_open_requests"] == 0
        assert now['embedmill_http_waiting_tokens{lane="query"}'] == 0
        assert now['embedmill_lane_busy_seconds_total{lane="query"}'] > 0
        assert now["embedmill_ready"] == 1
        assert "secret" not in server.log() and "secret" not in page
        if shutil.which("promtool"):
            check = subprocess.run(["promtool", "check", "metrics"], input=page, text=True,
                                   capture_output=True, check=False)
            assert check.returncode == 0 and not check.stderr, check.stderr
        top = subprocess.run([EMBEDMILL, "top", "--once", address], capture_output=True, text=True,
                             check=True).stdout
        assert "requests/s" in top and "0 tokens wait" in top, top
        server.stop()


def case_doubled():
    """A text that has the prompt already gets one warning in all, and its vectors none the less."""
    model = os.path.join(os.path.dirname(RERANKER), "tiny-xlm-roberta.gguf")
    with Server(model=model) as server:
        warned = lambda: server.log().count('"code":"doubled_prompt"')
        assert server.embed("the query: secret", prompt_name="none").status == 200
        assert server.embed("query", prompt_name="query").status == 200
        assert server.embed(["a", "the query: secret"], prompt_name="query").status == 200
        wait_for("a warning", lambda: warned() == 1)
        assert server.embed("the query: secret", prompt_name="query").status == 200
        server.stop()
        assert warned() == 1 and "secret" not in server.log(), server.log()


if __name__ == "__main__":
    run_cases(globals())
