#!/usr/bin/env python3
"""`embedmill serve` with several models: which one answers, and that nothing of them mixes.

Usage: test_serve_models.py EMBEDMILL [CASE ...]
"""
import json
import os
import random
import select
import shutil
import subprocess
import tempfile
import threading

from serve_rig import (DEADLINE, EMBEDMILL, LONG, MODEL, RERANKER, SMALL, Server, receive,
                       run_cases, scrape, send, wait_for)

TINY = os.path.join(os.path.dirname(RERANKER), "tiny-xlm-roberta.gguf")
# Beside the mapped files, for each further model, on two threads.
OWN_MIB = 30


def embedded(model, lines, *args):
    """Vectors of `embedmill embed` with that model."""
    out = subprocess.run([EMBEDMILL, "embed", "--model", model, *args],
                         input="\n".join(lines) + "\n", capture_output=True, text=True, check=True)
    return [json.loads(line)["embedding"] for line in out.stdout.splitlines()]


def serve(*args, models, **more):
    """models: {name: file}"""
    first, *others = [f"{name}={path}" for name, path in models.items()]
    flags = [word for other in others for word in ("--model", other)]
    return Server(*flags, *args, model=first, **more)


def case_more_tokens_than_bytes():
    """A unigram model puts a character before a text: /tokenize shows all tokens of one byte."""
    with serve(models={"tiny": TINY}) as server:
        for text in "x?":
            ids = [t["id"] for t in server.ask("/tokenize", {"inputs": text}).json()[0]]
            assert len(ids) == 4, ids
            assert server.embed(ids).vectors() == server.embed(text).vectors(), ids


def case_info():
    """/info names the pooling of the model that it describes."""
    for name, pooling in (("xlm-roberta", "cls"), ("roberta", "mean"), ("qwen3", "last_token")):
        with Server(model=os.path.join(os.path.dirname(TINY), f"tiny-{name}.gguf")) as server:
            assert server.ask("/info").json()["model_type"] == {"embedding": {"pooling": pooling}}


def case_chosen():
    """By `model` on every path; the first that does what is asked where a request names none."""
    texts = ["The ferry leaves at seven.", "x"]
    big, small = embedded(MODEL, texts), embedded(SMALL, texts)
    assert len(big[0]) == 768 and len(small[0]) == 384
    with serve(models={"Big-1": MODEL, "small": SMALL, "ranks": RERANKER}) as server:
        ask = server.ask
        for path, field, of in (("/v1/embeddings", "input", lambda a: a.vectors()),
                                ("/embed", "inputs", lambda a: a.json()),
                                ("/api/embed", "input", lambda a: a.json()["embeddings"])):
            assert of(ask(path, {field: texts})) == big, path
            assert of(ask(path, {field: texts, "model": "big-1"})) == big, path
            # Wherever it stands in the body, and whatever precedes its last slash.
            assert of(ask(path, {field: texts, "model": "who/SMALL"})) == small, path
            assert of(ask(path, {"model": "small", field: texts})) == small, path
        assert server.embed("x", model="small").json()["model"] == "small"
        assert server.embed("x").json()["model"] == "Big-1"
        # What depends on the model: dimensions, prompts, ids, lengths, the fingerprint.
        assert server.embed(texts, model="small", dimensions=256).vectors() == \
            embedded(SMALL, texts, "--dim", "256")
        assert server.embed(texts, dimensions=768).vectors() == big
        for body in ({"dimensions": 768, "model": "small"}, {"model": "small", "dimensions": 768}):
            answer = ask("/v1/embeddings", {**body, "input": "x"})
            assert answer.status == 400 and "384" in answer.json()["error"]["message"]
        assert server.embed(texts, prompt_name="query").vectors() == \
            embedded(MODEL, texts, "--prompt", "query")
        assert server.embed(texts, model="small", prompt_name="query").vectors() == small
        for name, path in (("Big-1", MODEL), ("small", SMALL)):
            ids = [t["id"] for t in ask("/tokenize", {"inputs": texts[0], "model": name}).json()[0]]
            assert server.embed(ids, model=name).vectors() == \
                embedded(path, texts[:1], "--prompt", "none"), name
        assert ask("/tokenize", {"inputs": "x"}).json() == \
            ask("/tokenize", {"inputs": "x", "model": "Big-1"}).json()
        assert server.embed([40000], model="small").status == 400 # and big has so many
        assert server.embed([40000]).status == 200
        cut = server.embed(LONG * 3, model="small")
        assert cut.headers["x-embedding-truncated"] == "1"
        assert cut.json()["usage"]["total_tokens"] == 512, cut.json()["usage"]
        assert "x-embedding-truncated" not in server.embed(LONG * 3).headers
        packed = {name: ask("/v1/embeddings", {"input": "x", "model": name},
                            ["Accept: application/msgpack"]).body for name in ("Big-1", "small")}
        marks = {m["id"]: mark for m in ask("/v1/models").json()["data"]
                 for mark in [fingerprint(server, m["id"])]}
        assert marks["small"].encode() in packed["small"]
        assert marks["Big-1"].encode() in packed["Big-1"]
        assert len(set(marks.values())) == 3
        # By the fingerprint that records carry, so that who reads an index needs no list of names.
        assert {m["id"]: m["fingerprint"] for m in ask("/v1/models").json()["data"]} == marks
        record = subprocess.run([EMBEDMILL, "embed", "--model", SMALL, "--format", "json"],
                                input="x\n", capture_output=True, text=True, check=True).stdout
        mark = json.loads(record)["model_fingerprint"]
        for name in (mark, mark.upper()):
            answer = server.embed(texts, model=name)
            assert answer.vectors() == small and answer.json()["model"] == "small", name
            assert ask(f"/v1/models/{name}").json()["id"] == "small"
        assert ask("/embed", {"inputs": texts, "model": marks["Big-1"]}).json() == big
        for path, status in (("/v1/rerank", 400), ("/v1/embeddings", 404)):
            name = mark if path == "/v1/rerank" else mark[:-1]
            answer = ask(path, {"query": "a", "documents": ["b"], "input": "a", "model": name})
            assert answer.status == status, (path, answer.body)
        # Scores by the reranker, whoever is asked for none.
        body = {"query": "when", "documents": ["a", "b"]}
        scores = ask("/v1/rerank", body).json()
        assert ask("/v1/rerank", {**body, "model": marks["ranks"]}).json() == scores
        assert scores["model"] == "ranks" and len(scores["results"]) == 2
        assert ask("/v1/rerank", {**body, "model": "ranks"}).json()["results"] == scores["results"]
        for path, model, status in (("/v1/rerank", "small", 400), ("/v1/embeddings", "ranks", 400),
                                    ("/embed", "ranks", 424), ("/rerank", "small", 424)):
            answer = ask(path, {**body, "texts": ["a"], "input": "a", "inputs": "a",
                                "model": model})
            assert answer.status == status, (path, answer.body)
        # Names.
        listed = ask("/v1/models").json()["data"]
        assert [m["id"] for m in listed] == ["Big-1", "small", "ranks"]
        assert ask("/v1/models/SMALL").json() == listed[1]
        for answer in (server.embed("x", model="embeddinggemma-300m"), ask("/v1/models/gpt-5"),
                       ask("/v1/rerank", {**body, "model": "gpt-5"})):
            error = answer.json()["error"]
            assert answer.status == 404 and error["code"] == "model_not_found", answer.body
            assert "`Big-1`, `small`, `ranks`" in error["message"], error
        assert server.embed("x", model=7).json()["error"]["param"] == "model"
        assert ask("/info").json()["model_id"] == "Big-1"
        server.stop()


def fingerprint(server, name):
    found = [json.loads(line)["fingerprint"] for line in server.log().splitlines()
             if '"model is ready"' in line and f'"model":"{name}"' in line]
    assert len(found) == 1, server.log()
    return found[0]


def case_mixed():
    """Many clients of all models at once, with a cache: each vector is of the model asked for."""
    texts = [f"text {i} of the many: {LONG[i:i + 40]}" for i in range(40)]
    models = {"a": SMALL, "b": TINY, "c": SMALL}
    want = {name: embedded(path, texts) for name, path in (("a", SMALL), ("b", TINY))}
    want["c"] = want["a"] # the same file twice is one mapping, and two models all the same
    folder = tempfile.mkdtemp(prefix="embedmill-many-")
    try:
        for again in range(2): # the second time what the first has left on disk
            with serve("--cache", f"{folder}/cache", "--metrics-listen", "127.0.0.1:0",
                       "--http-access-log", models=models) as server:
                n_texts = crowd(server, texts, want)
                now, page, _ = scrape(server)
                for name in models:
                    assert now[f'embedmill_http_model_texts_total{{model="{name}"}}'] == \
                        n_texts[name], (name, n_texts)
                    assert now[f'embedmill_http_model_tokens_total{{model="{name}"}}'] > 0
                    cached = now[f'embedmill_http_model_cached_total{{model="{name}"}}']
                    assert cached >= (n_texts[name] if again else 1), (name, cached, n_texts)
                    assert f'embedmill_http_model_info{{model="{name}",fingerprint="' in page
                assert now["embedmill_http_texts_total"] == sum(n_texts.values())
                assert now['embedmill_http_waiting_tokens{lane="query"}'] == 0
                if shutil.which("promtool"):
                    check = subprocess.run(["promtool", "check", "metrics"], input=page, text=True,
                                           capture_output=True, check=False)
                    assert check.returncode == 0 and not check.stderr, check.stderr
                wait_for("the log", lambda: '"msg":"request"' in server.log())
                logged = [json.loads(line)["model"] for line in server.log().splitlines()
                          if '"msg":"request"' in line and '"texts":0' not in line]
                assert set(logged) == set(models), set(logged)
                server.stop()
        # It is the folder of one model as well.
        with Server("--cache", f"{folder}/cache", "--metrics-listen", "127.0.0.1:0",
                    model=TINY) as server:
            assert server.embed(texts).vectors() == want["b"]
            assert scrape(server)[0]["embedmill_http_cached_total"] == len(texts)
            server.stop()
    finally:
        shutil.rmtree(folder)


def crowd(server, texts, want):
    """Eight clients with forty requests each; how many texts each model was sent."""
    n_texts, wrong, lock = dict.fromkeys(want, 0), [], threading.Lock()

    def client(seed):
        rng = random.Random(seed)
        with server.connect() as s:
            for _ in range(40):
                name = rng.choice(sorted(want))
                # Some are queries and some, of more than 4 KiB, lists.
                which = rng.sample(range(len(texts)), rng.choice((1, 2, 3, len(texts))))
                body = {"input": [texts[i] for i in which], "model": name}
                if len(which) > 3:
                    body["user"] = "x" * 4096
                send(s, "/v1/embeddings", body)
                got = receive(s).vectors()
                with lock:
                    n_texts[name] += len(which)
                    if got != [want[name][i] for i in which]:
                        wrong.append((seed, name, which))
    clients = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert not wrong, wrong[:3]
    return n_texts


def own_mib(server):
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
        fields = dict(line.split(":", 1) for line in status)
    return int(fields["RssAnon"].split()[0]) / 1024


def case_memory():
    """Of a further model nearly all is its file, which is mapped once for all."""
    sizes, longs = {}, {}
    for n in (1, 2, 3):
        models = dict(list({"a": SMALL, "b": MODEL, "c": SMALL}.items())[:n])
        with serve("--threads", "2", "--cache-memory", "0", models=models) as server:
            for name in models:
                for _ in range(3):
                    assert server.embed(["a text", "another"], model=name).status == 200
                    assert server.embed([LONG] * 8, model=name).status == 200
            sizes[n] = own_mib(server)
            for name in models: # 540 words each: what sessions grow to
                assert server.embed([LONG * 3] * 8, model=name).status == 200
            longs[n] = own_mib(server)
            server.stop()
    print("own memory, MiB:", {n: round(size, 1) for n, size in sizes.items()},
          "after texts of 540 words:", {n: round(size, 1) for n, size in longs.items()})
    assert sizes[2] - sizes[1] < OWN_MIB and sizes[3] - sizes[2] < OWN_MIB, sizes


def case_overload():
    """What waits for one model is no reason to refuse requests for another; all of it drains."""
    with serve("--http-queue-tokens", "4000", "--cache-memory", "0", "--threads", "1",
               "--metrics-listen", "127.0.0.1:0", "--drain-timeout", "100s",
               models={"busy": SMALL, "idle": TINY}) as server:
        statuses, lock = [], threading.Lock()

        def ask(i):
            answer = server.embed([f"{i} {n} {LONG}" for n in range(10)], model="busy")
            with lock:
                statuses.append((answer.status, answer.headers.get("retry-after")))
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            answer = server.embed("a query", model="idle")
            assert answer.status == 200, (answer.status, answer.body)
        refused = [int(after) for status, after in statuses if status == 429]
        assert {status for status, _ in statuses} == {200, 429}, statuses
        assert 1 <= min(refused) <= max(refused) <= 30, statuses
        assert server.embed("afterwards", model="busy").status == 200
        # A client that is gone, and one that waits while the server stops.
        with server.connect() as gone:
            send(gone, "/v1/embeddings", {"input": [f"{i} {LONG}" for i in range(9)],
                                          "model": "idle"})
        with server.connect() as waits:
            send(waits, "/v1/embeddings", {"input": [f"z {i} {LONG}" for i in range(60)],
                                           "model": "busy"})
            wait_for("the request",
                     lambda: scrape(server)[0]["embedmill_http_open_requests"] > 0 or
                     select.select([waits], [], [], 0)[0])
            server.process.terminate()
            answer = receive(waits)
            assert answer.status == 200 and len(answer.vectors()) == 60, answer.body[:300]
        assert server.process.wait(DEADLINE) == 0, server.log()


def case_beside():
    """`run --http-listen`: messages get the first model, requests that which they name."""
    lines = [f"{i} {LONG[:80]}" for i in range(30)]
    want = {"a": embedded(TINY, lines), "b": embedded(SMALL, lines)}
    with serve("--source", "stdin", "--sink", "stdout", "--output-format", "json",
               models={"a": TINY, "b": SMALL, "ranks": RERANKER}, command="run",
               stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        answers = []
        reader = threading.Thread(
            target=lambda: answers.extend(json.loads(x) for x in server.process.stdout))
        reader.start()
        server.process.stdin.write(("\n".join(lines) + "\n").encode())
        server.process.stdin.flush()
        for name in ("a", "b"):
            assert server.embed(lines, model=name).vectors() == want[name], name
        assert server.ask("/rerank", {"query": "a", "texts": lines}).status == 200
        wait_for("all messages", lambda: len(answers) == len(lines))
        assert [answer["embedding"] for answer in answers] == want["a"]
        server.process.stdin.close()
        assert server.process.wait(DEADLINE) == 0, server.log()
        reader.join()
    got, text = refusal("--model", f"r={RERANKER}", "--model", f"a={TINY}", "--source", "stdin",
                        "--sink", "stdout", "--http-listen", "127.0.0.1:0", command="run")
    assert got == 66 and "reranker" in text, text
    # Nothing is there to choose from.
    got, text = refusal("--model", f"a={TINY}", "--model", f"r={RERANKER}", "--model-field", "m",
                        "--redis-output-stream", "o:{model}", command="run")
    assert got == 78 and "only one of these models gives vectors" in text, (got, text)


def refusal(*words, config=None, environment=None, command="serve"):
    env = {k: v for k, v in os.environ.items() if not k.startswith("EMBEDMILL_")}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(config or "")
        file.flush()
        flags = ["--config", file.name] if config else []
        out = subprocess.run([EMBEDMILL, command, *flags, *words], capture_output=True, text=True,
                             env={**env, **(environment or {})}, check=False, input="x\n",
                             timeout=DEADLINE)
    return out.returncode, out.stderr + out.stdout


def case_configured():
    """From flags, the environment and a file; and what is refused, in words."""
    config = f"models:\n  first: {SMALL}\n  second.v2: {TINY}\nhttp: {{listen: '127.0.0.1:0'}}\n"
    code, printed = refusal("--print-config", config=config)
    assert code == 0 and "models.second.v2: " in printed and "\nmodel: " not in printed, printed
    again, same = refusal("--print-config", config=printed)
    assert again == 0 and "models.first" in same, same # what is printed can be read
    code, printed = refusal("--print-config", environment={"EMBEDMILL_MODELS_NEW": SMALL},
                            config="model: other.gguf\n")
    assert code == 0 and "models.new" in printed and "other.gguf" not in printed, printed
    # One model from a stronger place than several.
    code, printed = refusal("--print-config", "--model", TINY, config=config)
    assert code == 0 and f'model: "{TINY}"' in printed and "models." not in printed, printed
    listen = ["--http-listen", "127.0.0.1:0"]
    for words, code, said in (
            (["--model", SMALL, "--model", f"b={TINY}"], 64, "expected a name for each model"),
            (["--model", f"b={TINY}", "--model", SMALL], 64, "expected a name for each model"),
            (["--model", f"b={SMALL}", "--model", f"B={TINY}"], 78, "two models have the name"),
            (["--model", f"b={SMALL}", "--model", "c=/nonexistent"], 66, "/nonexistent"),
            (["--model", f"b={SMALL}", "--http-models", "x"], 64, "leave it out"),
            (["--model", f"b={MODEL}", "--model", f"c={SMALL}", "--dim", "768"], 78,
             "fewer values"),
            ([w for i in range(9) for w in ("--model", f"m{i}={TINY}")], 78, "9 models")):
        got, text = refusal(*words, *listen)
        assert got == code and said in text, (words, got, text)
    got, text = refusal(config="models:\n  'a b': x\n")
    assert got == 78 and "letters, digits" in text, text
    # The last of one name counts, and one name alone is a model as well.
    with Server("--model", f"b={TINY}", model="b=/nonexistent") as server:
        assert [m["id"] for m in server.ask("/v1/models").json()["data"]] == ["b"]
        assert server.embed("x", model="b").status == 200
        server.stop()
    # A file of just that name is that file.
    folder = tempfile.mkdtemp(prefix="embedmill-many-")
    try:
        os.symlink(TINY, f"{folder}/a=b.gguf")
        with Server(model="a=b.gguf", cwd=folder) as server:
            assert "a=b" not in str(server.ask("/v1/models").json())
            server.stop()
    finally:
        shutil.rmtree(folder)
    # Commands that take one model say so, and take one that has a name.
    two = ["--model", f"a={SMALL}", "--model", f"b={TINY}"]
    got, text = refusal(*two, command="embed")
    assert got == 78 and "takes one" in text, text
    got, text = refusal(*two, "--source", "stdin", "--sink", "stdout", command="run")
    assert got == 64 and "an output for one" in text, text
    got, text = refusal("--model", f"a={TINY}", command="embed")
    assert got == 0 and '"embedding"' in text, text
    got, text = refusal(*two, "--source", "stdin", "--sink", "stdout", "--json", command="check")
    found = {f["what"]: f for f in json.loads(text)["findings"]}
    assert found["a"]["result"] == found["b"]["result"] == "ok", text
    assert "serves all 2" in found["models"]["said"], text


if __name__ == "__main__":
    run_cases(globals())
