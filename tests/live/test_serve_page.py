#!/usr/bin/env python3
"""The page that `embedmill serve --http-page` serves, in a real browser: Debian's chromium, which
is driven through its debugging pipe and can reach 127.0.0.1 only.

Usage: test_serve_page.py EMBEDMILL [CASE ...]
"""
import json
import os
import shutil
import subprocess
import tempfile
import time

from serve_rig import DEADLINE, EMBEDMILL, RERANKER, SMALL, Server, run_cases

TEXTS = ["The last ferry goes at a quarter to midnight.", "Bread and wine.", "<b>&amp; \" markup"]
QUERY = "When does the last ferry leave?"


class Browser:
    """One page of a chromium of its own."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="embedmill-page-")
        theirs_in, self.to = os.pipe()
        self.answers, theirs_out = os.pipe()

        def place(): # it reads from 3 and writes to 4
            first, second = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(first, 3)
            os.dup2(second, 4)
        self.process = subprocess.Popen(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync",
             "--disable-component-update", "--disable-extensions", "--remote-debugging-pipe",
             f"--user-data-dir={self.folder}/profile",
             "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False,
            preexec_fn=place)
        os.close(theirs_in)
        os.close(theirs_out)
        os.set_blocking(self.answers, False)
        self.rest, self.n, self.session, self.asked, self.said = b"", 0, None, [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target,
                                 flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.call(domain + ".enable")

    def call(self, method, **params):
        self.n += 1
        message = {"id": self.n, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 2 * DEADLINE
        while time.monotonic() < end:
            found = self.read()
            if found is None:
                assert self.process.poll() is None, "chromium ended"
                time.sleep(0.01)
            elif found.get("id") == self.n:
                assert "error" not in found, found
                return found["result"]
            elif found.get("method") == "Network.requestWillBeSent":
                self.asked.append(found["params"]["request"]["url"])
            elif found.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.said.append(found["params"])
        raise AssertionError(f"no answer to {method}")

    def read(self):
        while b"\0" not in self.rest:
            try:
                more = os.read(self.answers, 1 << 16)
            except BlockingIOError:
                return None
            assert more, "chromium closed its pipe"
            self.rest += more
        one, self.rest = self.rest.split(b"\0", 1)
        return json.loads(one)

    def run(self, script):
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True,
                          returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, script):
        end = time.monotonic() + DEADLINE
        while not self.run(script):
            assert time.monotonic() < end, (script, self.said, self.run("document.body.innerText"))
            time.sleep(0.05)

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.to)
        os.close(self.answers)
        shutil.rmtree(self.folder, ignore_errors=True)


def compare(browser, query, texts):
    """Type, press the button; [[score, text, tokens]] as they are shown."""
    browser.run(f"document.getElementById('query').value = {json.dumps(query)};"
                f"document.getElementById('texts').value = {json.dumps(chr(10).join(texts))};"
                "document.getElementById('result').hidden = true;"
                "document.getElementById('go').click()")
    browser.wait("!document.getElementById('result').hidden || "
                 "document.getElementById('error').textContent")
    assert browser.run("document.getElementById('error').textContent") == ""
    return browser.run("[...document.querySelectorAll('#scores tr')].map("
                       "(tr) => [...tr.cells].map((td) => td.textContent))")


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b))


def case_off():
    """Only when it is asked for; then with a policy, and with nothing from elsewhere."""
    with Server(model=SMALL) as server:
        assert server.ask("/").status == 404
    with Server("--http-page", model=SMALL) as server:
        page = server.ask("/")
        assert page.status == 200 and page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert b"://" not in page.body and b"src=" not in page.body and b"href=" not in page.body
        assert server.ask("/", {}).headers["allow"] == "GET"


def browse(case, *args, model=SMALL):
    if not shutil.which("chromium"):
        print("  skipped: no chromium; scripts/install-packages test installs it")
        return
    with Server("--http-page", *args, model=model) as server:
        browser = Browser()
        try:
            browser.call("Page.navigate", url=f"http://{server.address}/")
            browser.wait("document.readyState === 'complete' && window.location.port")
            case(server, browser)
            foreign = [url for url in browser.asked if not url.startswith(
                (f"http://{server.address}/", "about:", "data:"))]
            assert not foreign and len(browser.asked) > 2, browser.asked
        finally:
            browser.close()
        server.stop()


def choose(browser, paths, n=3):
    """Files to search; n vectors are in them."""
    browser.run("file = []")
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    node = browser.call("DOM.querySelector", nodeId=root, selector="#index")["nodeId"]
    browser.call("DOM.setFileInputFiles", files=paths, nodeId=node)
    if n:
        browser.wait(f"file.length === {n}")


def nearest(browser):
    """[[cosine, id]] as they are shown."""
    compare(browser, QUERY, TEXTS)
    return browser.run("[...document.querySelectorAll('#nearest tr')].map("
                       "(tr) => [...tr.cells].map((td) => td.textContent))")


def vectors_case(server, browser):
    browser.wait("document.getElementById('about').textContent.includes('values a vector')")
    rows = compare(browser, QUERY, TEXTS)
    query = server.embed(QUERY).vectors()[0]
    vectors = server.embed(TEXTS).vectors()
    best = sorted(range(3), key=lambda i: -cosine(query, vectors[i]))
    assert [row[1] for row in rows] == [TEXTS[i] for i in best], rows # as texts, not as markup
    for row, i in zip(rows, best):
        assert abs(float(row[0]) - cosine(query, vectors[i])) < 1e-3, (row, i)
        ids = [t["id"] for t in server.ask("/tokenize", {"inputs": TEXTS[i]}).json()[0]]
        assert row[2] == f"{len(ids)} tokens: " + " ".join(map(str, ids)), row
    # A file of vectors.
    lines = subprocess.run([EMBEDMILL, "embed", "--model", SMALL], input="\n".join(TEXTS) + "\n",
                           capture_output=True, text=True, check=True).stdout
    path = os.path.join(browser.folder, "vectors.jsonl")
    with open(path, "w", encoding="utf-8") as f:
        f.write(lines)
    choose(browser, [path])
    ids = [str(json.loads(line)["id"]) for line in lines.splitlines()]
    assert [row[1] for row in nearest(browser)] == [ids[i] for i in best]
    # An index of each number that it may hold, with a text that was replaced.
    for dtype in ("f4", "f2", "i1"):
        npy = os.path.join(browser.folder, f"texts-{dtype}.npy")
        subprocess.run([EMBEDMILL, "index", "-", "--model", SMALL, "-o", npy, "--dtype", dtype],
                       input="".join(json.dumps({"id": f"text {i}", "text": text}) + "\n"
                                     for i, text in [(best[-1], QUERY), *enumerate(TEXTS)]),
                       capture_output=True, text=True, check=True)
        choose(browser, [npy, npy + ".ids.jsonl"])
        near = nearest(browser)
        assert [row[1] for row in near] == [f"text {i}" for i in best], (dtype, near)
        for row, i in zip(near, best):
            assert abs(float(row[0]) - cosine(query, vectors[i])) < 0.01, (dtype, row, i)
    choose(browser, [npy], n=None)
    browser.wait("document.getElementById('error').textContent.includes('ids.jsonl, too')")
    # What is wrong is said.
    browser.run("document.getElementById('texts').value = '';"
                "document.getElementById('go').click()")
    browser.wait("document.getElementById('error').textContent.startsWith('400')")


def reranker_case(server, browser):
    browser.wait("document.getElementById('about').textContent.includes('a reranker')")
    rows = compare(browser, QUERY, TEXTS)
    want = server.ask("/rerank", {"query": QUERY, "texts": TEXTS}).json()
    assert [row[1] for row in rows] == [TEXTS[rank["index"]] for rank in want], rows
    assert all(abs(float(row[0]) - rank["score"]) < 1e-4 for row, rank in zip(rows, want))


def key_case(server, browser):
    browser.wait("document.getElementById('error').textContent.startsWith('401')")
    browser.run("document.getElementById('key').value = 'the-key-of-the-page'")
    assert len(compare(browser, QUERY, TEXTS)) == 3
    assert server.ask("/info").status == 401


def case_vectors():
    """Tokens, cosines, the nearest of a file; markup in a text is a text."""
    browse(vectors_case)


def case_reranker():
    """Scores instead of cosines."""
    browse(reranker_case, model=RERANKER)


def case_key():
    """The page is served without a key; what it asks needs one."""
    with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
        keys.write("the-key-of-the-page\n")
        keys.flush()
        browse(key_case, "--http-key-file", keys.name)


if __name__ == "__main__":
    run_cases(globals())
