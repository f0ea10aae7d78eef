"""A server of embeddings on a port of its own, and what asks it: for tests of `embedmill serve`.

The program is the first argument of the test.
"""
import base64
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

EMBEDMILL = sys.argv[1]
MODEL = os.environ.get("EMBEDMILL_TEST_MODEL") or os.path.expanduser(
    "~/.cache/embedmill/embeddinggemma-300m-q8_0.gguf")
# Where times are compared the model is a small one: the others' tests run beside this one.
SMALL = os.path.expanduser("~/.cache/embedmill/all-minilm-l6-v2-q8_0.gguf")
DEADLINE = 60
SERVING = re.compile(r'"serving (?:embeddings|scores)","listen":"([^"]*)"')
RERANKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "models",
                        "tiny-bert-reranker.gguf")
LONG = "The ferry leaves at seven, and the last one goes at a quarter to midnight. " * 12


def wait_for(what, condition, seconds=DEADLINE):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.02)


class Server:
    """A server of its own on a free port, ended with the block."""

    def __init__(self, *args, listen="127.0.0.1:0", model=MODEL, command="serve", **more):
        self.folder = tempfile.mkdtemp(prefix="embedmill-serve-")
        self.log_name = os.path.join(self.folder, "log")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("EMBEDMILL_")}
        with open(self.log_name, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [EMBEDMILL, command, "--model", model, "--http-listen", listen,
                 "--log-format", "json", *args], stderr=log, env=environment, **more)
        wait_for("the address in the log",
                 lambda: self.process.poll() is not None or SERVING.search(self.log()))
        assert self.process.poll() is None, self.log()
        self.address = SERVING.findall(self.log())[-1]

    def log(self):
        with open(self.log_name, encoding="utf-8") as f:
            return f.read()

    def connect(self):
        if self.address.startswith("unix:"):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(DEADLINE)
            s.connect(self.address[5:])
            return s
        host, port = self.address.rsplit(":", 1)
        return socket.create_connection((host, int(port)), DEADLINE)

    def ask(self, path, body=None, headers=(), method=None):
        with self.connect() as s:
            send(s, path, body, headers, method)
            return receive(s, has_body=method != "HEAD")

    def embed(self, text, path="/v1/embeddings", **fields):
        return self.ask(path, {"input": text, **fields})

    def stop(self, code=0):
        self.process.terminate()
        assert self.process.wait(DEADLINE) == code, self.log()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder)


def send(s, path, body=None, headers=(), method=None):
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    method = method or ("GET" if body is None else "POST")
    head = [f"{method} {path} HTTP/1.1", "Host: x", *headers]
    if body is not None:
        head.append(f"Content-Length: {len(data)}")
    s.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + data)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def vectors(self):
        assert self.status == 200, self.body
        data = self.json()["data"]
        assert [d["index"] for d in data] == list(range(len(data)))
        return [d["embedding"] for d in data]


def receive(s, buffered=b"", has_body=True):
    """One answer; None: the connection was closed without."""
    while b"\r\n\r\n" not in buffered:
        more = s.recv(65536)
        if not more:
            return None
        buffered += more
    head, rest = buffered.split(b"\r\n\r\n", 1)
    lines = head.decode().split("\r\n")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
    length = int(headers.get("content-length", 0)) if has_body else 0
    while len(rest) < length:
        more = s.recv(65536)
        assert more, "cut"
        rest += more
    answer = Answer(int(lines[0].split()[1]), headers, rest[:length])
    answer.rest = rest[length:]
    return answer


def reference(lines, *args):
    """Vectors of `embedmill embed`."""
    out = subprocess.run([EMBEDMILL, "embed", "--model", MODEL, *args],
                         input="\n".join(lines) + "\n", capture_output=True, text=True, check=True)
    return [json.loads(line)["embedding"] for line in out.stdout.splitlines()]


def floats(text):
    raw = base64.b64decode(text)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def scrape(server):
    """{name with labels: value}, and the page"""
    address = re.findall(r'"serving metrics","listen":"([^"]*)"', server.log())[-1]
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), DEADLINE) as s:
        send(s, "/metrics")
        page = receive(s).body.decode()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
            for line in page.splitlines() if not line.startswith("#")}, page, address


def run_cases(cases):
    """Those that are named after the program, or all: functions whose names begin with case_."""
    cases = {name[5:]: run for name, run in cases.items() if name.startswith("case_")}
    if not os.path.exists(MODEL) or not os.path.exists(SMALL):
        print("skipped: no model; scripts/get-model and scripts/get-minilm fetch them")
        sys.exit(77)
    for name in sys.argv[2:] or cases:
        began = time.monotonic()
        cases[name]()
        print(f"{name}: ok, {time.monotonic() - began:.1f} s", flush=True)
