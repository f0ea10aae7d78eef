#!/usr/bin/env python3
"""`embedmill serve` with a reranker: scores, errors, limits, and what a reranker does not do.

Usage: test_serve_rerank.py EMBEDMILL [CASE ...]
"""
import json
import subprocess
import threading

from serve_rig import EMBEDMILL, LONG, RERANKER, SMALL, Server, run_cases, scrape


def scores_of(query, texts, form):
    """Of `embedmill rerank`, in the order of the texts."""
    out = subprocess.run([EMBEDMILL, "rerank", query, "--model", RERANKER, "--scores", form],
                         input="\n".join(texts) + "\n", capture_output=True, text=True, check=True)
    return [json.loads(line)["score"] for line in out.stdout.splitlines()]


def case_rerank():
    """A reranker: the scores of `embedmill rerank`, as other servers answer, the best first."""
    query = "when does the last ferry leave"
    texts = [f"{LONG[i:i + 9 + 7 * i]} {i}" for i in range(40)]
    sigmoid, raw = scores_of(query, texts, "sigmoid"), scores_of(query, texts, "raw")
    best = sorted(range(40), key=lambda i: (-raw[i], i))

    def same(ranks, field, scores):
        assert [rank["index"] for rank in ranks] == best[:len(ranks)], ranks
        assert all(abs(rank[field] - scores[rank["index"]]) <= 1e-6 * max(1, abs(rank[field]))
                   for rank in ranks), (ranks, scores)
    with Server("--metrics-listen", "127.0.0.1:0", model=RERANKER) as server:
        plain = server.ask("/rerank", {"query": query, "texts": texts})
        assert plain.status == 200, plain.body
        same(plain.json(), "score", sigmoid)
        assert len(plain.json()) == 40 and "text" not in plain.json()[0]
        same(server.ask("/rerank", {"query": query, "texts": texts, "raw_scores": True}).json(),
             "score", raw)
        named = server.ask("/rerank", {"query": query, "texts": texts, "return_text": True}).json()
        assert all(rank["text"] == texts[rank["index"]] for rank in named)
        for path in ("/v1/rerank", "/v2/rerank"):
            model = server.ask("/v1/models").json()["data"][0]["id"]
            answer = server.ask(path, {"query": query, "documents": texts, "model": model,
                                       "top_n": 3.0, "rank_fields": ["text"]})
            same(answer.json()["results"], "relevance_score", sigmoid)
            assert len(answer.json()["results"]) == 3 and answer.json()["model"] == model
            assert answer.json()["usage"]["total_tokens"] > 40
        mixed = [{"text": text, "id": [1]} if i % 2 else text for i, text in enumerate(texts)]
        answer = server.ask("/v1/rerank", {"query": query, "documents": mixed, "top_n": 1000,
                                           "return_documents": True}).json()
        same(answer["results"], "relevance_score", sigmoid)
        assert all(rank["document"] == {"text": texts[rank["index"]]}
                   for rank in answer["results"])
        # Scores do not depend on what else is asked, at the same time or before.
        alone = {rank["index"]: rank["score"] for rank in plain.json()}
        for i in range(0, 40, 13):
            one = server.ask("/rerank", {"query": query, "texts": [texts[i]]}).json()
            assert one == [{"index": 0, "score": alone[i], **({"truncated": True} if
                            one[0].get("truncated") else {})}], (one, alone[i])
        long = {"query": query, "texts": [LONG * 9, "short"], "truncate": True}
        cut = server.ask("/rerank", long)
        assert cut.headers["x-embedding-truncated"] == "1", cut.headers
        assert [r.get("truncated") for r in sorted(cut.json(), key=lambda r: r["index"])] == \
            [True, None]
        refused = server.ask("/rerank", {**long, "truncate": False})
        assert refused.status == 413 and "with the query" in refused.json()["error"]
        for path, body, status, param in (
                ("/rerank", {"query": query, "texts": []}, 400, None),
                ("/rerank", {"query": query, "texts": "a"}, 422, None),
                ("/rerank", {"query": query}, 422, None),
                ("/rerank", {"texts": ["a"]}, 422, None),
                ("/rerank", {"query": "", "texts": ["a"]}, 400, None),
                ("/rerank", {"query": query, "texts": ["a", ""]}, 400, None),
                ("/rerank", {"query": query, "texts": ["a", [1]]}, 422, None),
                ("/rerank", {"query": query, "texts": ["a", {"text": 1}]}, 422, None),
                ("/rerank", {"query": query, "texts": ["a"], "raw_scores": 1}, 422, None),
                ("/rerank", {"query": query, "texts": ["a"] * 5000}, 413, None),
                ("/v1/rerank", {"query": query, "documents": [{"body": "a"}]}, 400, "documents"),
                ("/v1/rerank", {"query": 7, "documents": ["a"]}, 400, "query"),
                ("/v1/rerank", {"query": query, "documents": ["a"], "top_n": 0}, 400, "top_n"),
                ("/v1/rerank", {"query": query, "documents": ["a"], "top_n": "1"}, 400, "top_n"),
                ("/v1/rerank", {"query": query, "documents": ["a"], "top_n": 1.5}, 400, "top_n"),
                ("/v1/rerank", {"query": query, "documents": ["a"], "model": "x"}, 404, "model")):
            answer = server.ask(path, body)
            assert answer.status == status, (path, body, answer.status, answer.body)
            if param:
                assert answer.json()["error"]["param"] == param, answer.body
        # What a reranker does not do is said, and what every server does it does.
        for path, status in (("/v1/embeddings", 400), ("/api/embed", 400), ("/embed", 424)):
            answer = server.ask(path, {"input": "a", "inputs": "a"})
            assert answer.status == status and "reranker" in str(answer.json()), answer.body
        assert [t["special"] for t in server.ask("/tokenize", {"inputs": "the"}).json()[0]] == \
            [True, False, True]
        info = server.ask("/info").json()
        assert "reranker" in info["model_type"] and "prompts" not in info, info
        now, _, _ = scrape(server)
        assert now['embedmill_http_requests_total{route="/v1/rerank",code="200"}'] == 2
        assert now["embedmill_http_texts_total"] > 40 * 6
        server.stop()
    with Server(model=SMALL) as server:
        for path, status in (("/rerank", 424), ("/v1/rerank", 400), ("/v2/rerank", 400)):
            answer = server.ask(path, {"query": "a", "texts": ["b"], "documents": ["b"]})
            assert answer.status == status and "embeddings" in str(answer.json()), answer.body
    with Server("--http-queue-tokens", "500", "--http-timeout", "1s", model=RERANKER) as server:
        many = {"query": query, "texts": [f"{i} {LONG}" for i in range(2000)]}
        statuses, lock = set(), threading.Lock()

        def ask():
            answer = server.ask("/rerank", many)
            with lock:
                statuses.add((answer.status, "retry-after" in answer.headers))
        for _ in range(20): # until one meets what another is waiting for
            threads = [threading.Thread(target=ask) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if (429, True) in statuses:
                break
        assert {(429, True)} <= statuses <= {(200, False), (429, True), (503, False)}, statuses
    out = subprocess.run([EMBEDMILL, "serve", "--model", RERANKER, "--cache", "/tmp/x",
                          "--http-listen", "127.0.0.1:0"], capture_output=True, text=True,
                         check=False)
    assert out.returncode == 78 and "reranker" in out.stderr, out
    out = subprocess.run([EMBEDMILL, "run", "--model", RERANKER, "--source", "stdin", "--sink",
                          "stdout"], input="x\n", capture_output=True, text=True, check=False)
    assert out.returncode == 66 and "reranker" in out.stderr, out


if __name__ == "__main__":
    run_cases(globals())
