#!/usr/bin/env python3
"""`embedmill dlq` on dead letters in a real redis-server: what is listed, what goes back, and how.

No worker and no model: letters are written here, as docs/wire-format.md says they look.

Usage: test_dlq.py EMBEDMILL
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import unittest

import redis

from ports import free_port
from redis_bench import has_tls, wait_for
from test_redis_tls import TlsBench

BINARY = sys.argv.pop(1) if len(sys.argv) > 1 else "embedmill"
LETTERS = "texts:dlq"


def letter(code, i, **fields):
    return {"body": f"text {i}", "color": "blue", **fields, "_code": code,
            "_error": "a\treason", "_stream": "texts", "_id": f"{i}-0", "_deliveries": "1"}


class Dlq(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="embedmill-test-")
        cls.port = free_port()
        cls.server = subprocess.Popen(
            ["redis-server", "--port", str(cls.port), "--bind", "127.0.0.1", "--dir", cls.folder,
             "--save", ""], stdout=subprocess.DEVNULL)
        cls.client = redis.Redis(port=cls.port)
        wait_for("redis-server answering", cls.client.ping)

    @classmethod
    def tearDownClass(cls):
        cls.server.kill()
        cls.server.wait()
        shutil.rmtree(cls.folder)

    def setUp(self):
        self.client.flushall()

    def dlq(self, *words, code=0, url=None):
        env = {k: v for k, v in os.environ.items() if not k.startswith("EMBEDMILL_")}
        run = subprocess.run(
            [BINARY, "dlq", words[0], "--redis-url", url or f"redis://127.0.0.1:{self.port}",
             *words[1:]], capture_output=True, env=env, check=False, timeout=60)
        self.assertEqual(run.returncode, code, run.stderr)
        return run.stdout.decode(), run.stderr.decode()

    def test_list(self):
        self.client.xadd(LETTERS, letter("bad_json", 1), id="5-1")
        self.client.xadd(LETTERS, {"body": b"\xff\n", "_code": "no_text", "_error": "r",
                                   "_position": "line 3"}, id="6-0")
        out, _ = self.dlq("list")
        self.assertEqual(out, "5-1\tbad_json\ttexts 1-0\ta reason\n6-0\tno_text\tline 3\tr\n")
        self.assertNotIn("text 1", out)
        out, _ = self.dlq("list", "--show", "--limit", "1")
        self.assertEqual(out, '5-1\tbad_json\ttexts 1-0\ta reason\t"text 1"\n')
        out, _ = self.dlq("list", "--json", "--show")
        self.assertEqual([json.loads(line) for line in out.splitlines()], [
            {"position": "5-1", "code": "bad_json", "origin": "texts 1-0", "reason": "a\treason",
             "payload": "text 1"},
            {"position": "6-0", "code": "no_text", "origin": "line 3", "reason": "r",
             "payload": "\ufffd\n"}])
        out, _ = self.dlq("list", "--code=no_text")
        self.assertEqual(out.count("\n"), 1)

    def test_list_pages(self):
        for i in range(101):
            self.client.xadd(LETTERS, letter("bad_json", i))
        out, _ = self.dlq("list")
        self.assertEqual([line.split("\t")[2] for line in out.splitlines()],
                         [f"texts {i}-0" for i in range(101)])

    def test_list_nothing(self):
        self.assertEqual(self.dlq("list"), ("", ""))

    def test_replay(self):
        """What came in is what goes back; fields of the same name keep their order."""
        value = bytes(range(256)) * 10
        self.client.execute_command("XADD", LETTERS, "*", "a", "1", "body", value, "a", "2",
                                    "_key", "k", *sum(([k, v] for k, v in letter("x", 1).items()
                                                       if k[0] == "_"), []))
        out, _ = self.dlq("replay")
        self.assertEqual(out, "1 put back, 0 left, 0 gone\n")
        raw = "return redis.call('XRANGE', 'texts', '-', '+')" # a dictionary loses the order
        [[_, fields]] = self.client.eval(raw, 0)
        self.assertEqual(fields, [b"a", b"1", b"body", value, b"a", b"2", b"_key", b"k"])
        self.assertEqual(self.client.xlen(LETTERS), 0)
        self.assertEqual(self.dlq("replay")[0], "0 put back, 0 left, 0 gone\n")
        self.assertEqual(self.client.xlen("texts"), 1)

    def test_replay_some(self):
        for i in range(40):
            self.client.xadd(LETTERS, letter("bad_json" if i % 2 else "no_text", i))
        out, _ = self.dlq("replay", "--dry-run", "--code", "no_text")
        self.assertEqual(out.count("\n"), 20)
        self.assertEqual(self.client.xlen("texts"), 0)
        out, _ = self.dlq("replay", "--code", "no_text", "--limit", "15", "--to", "again")
        self.assertEqual(out, "15 put back, 0 left, 0 gone\n")
        moved = [fields[b"body"].decode() for _, fields in self.client.xrange("again")]
        self.assertEqual(moved, [f"text {i}" for i in range(0, 30, 2)])
        left = [fields[b"body"].decode() for _, fields in self.client.xrange(LETTERS)]
        self.assertEqual(left, [f"text {i}" for i in range(40) if i % 2 or i >= 30])

    def test_several_streams(self):
        """Each letter goes back where it came from, from a stream of its own or one for all."""
        several = ("--redis-stream", "a,b")
        for i in range(3):
            self.client.xadd("a:dlq", letter("bad_json", i) | {"_stream": "a"}, id=f"{i + 1}-0")
            self.client.xadd("b:dlq", letter("no_text", i) | {"_stream": "b"}, id=f"{i + 1}-0")
        out, _ = self.dlq("list", *several)
        self.assertEqual([line.split("\t")[0] for line in out.splitlines()],
                         [f"{s}:dlq {i}-0" for s in "ab" for i in (1, 2, 3)])
        out, _ = self.dlq("replay", *several, "--code", "no_text")
        self.assertEqual(out, "3 put back, 0 left, 0 gone\n")
        self.assertEqual([self.client.xlen(s) for s in ("a", "b", "a:dlq", "b:dlq")], [0, 3, 3, 0])
        out, _ = self.dlq("replay", *several, "--limit", "1", "--to", "c")
        self.assertEqual([self.client.xlen(s) for s in ("a", "c", "a:dlq")], [0, 1, 2])

        one = (*several, "--redis-dead-letters", "dead")
        self.client.flushall()
        for i, stream in enumerate("abab"):
            self.client.xadd("dead", letter("bad_json", i) | {"_stream": stream}, id=f"{i + 1}-0")
        out, _ = self.dlq("list", *one)
        self.assertEqual([line.split("\t")[::2] for line in out.splitlines()],
                         [[f"{i + 1}-0", f"{s} {i}-0"] for i, s in enumerate("abab")])
        self.client.xadd("dead", letter("bad_json", 9) | {"_stream": "z"}, id="9-0")
        _, err = self.dlq("replay", *one, code=78)
        self.assertIn("9-0 did not come from one of the streams in redis.stream", err)
        self.assertEqual([self.client.xlen(s) for s in ("a", "b", "dead")], [2, 2, 1])
        out, _ = self.dlq("replay", "--redis-stream", "a,b,z", "--redis-dead-letters", "dead")
        self.assertEqual(self.client.xlen("z"), 1)

    def test_what_is_cut_stays(self):
        self.client.xadd(LETTERS, letter("output_too_large", 1, _x="") | {
            "_error": "too large; the first 3 of 50 payload bytes are kept"})
        self.client.xadd(LETTERS, {"_code": "no_body", "_error": "nothing in it"})
        out, err = self.dlq("replay")
        self.assertEqual(out, "0 put back, 2 left, 0 gone\n")
        self.assertEqual(err.count("is left where it is"), 2)
        self.assertEqual(self.client.xlen(LETTERS), 2)

    def test_nothing_is_lost_when_the_input_refuses(self):
        self.client.xadd(LETTERS, letter("bad_json", 1))
        self.client.set("texts", "no stream")
        _, err = self.dlq("replay", code=69)
        self.assertIn("WRONGTYPE", err)
        self.assertEqual(self.client.xlen(LETTERS), 1)

    def test_letters_that_die_again(self):
        """One that a worker buries again meanwhile is not met again in the same run."""
        for i in range(50):
            self.client.xadd(LETTERS, letter("bad_json", i))
        over = threading.Event()

        def write_dead_letters():
            while not over.is_set() or self.client.xlen("texts"):
                for at, _ in self.client.xrange("texts", count=10):
                    self.client.xadd(LETTERS, letter("bad_json", 1))
                    self.client.xdel("texts", at)

        worker = threading.Thread(target=write_dead_letters)
        worker.start()
        out, _ = self.dlq("replay")
        over.set()
        worker.join()
        self.assertEqual(out, "50 put back, 0 left, 0 gone\n")
        self.assertEqual(self.client.xlen(LETTERS), 50)

    def test_to_what_a_worker_writes(self):
        """Among the letters it would lose its code, among the outputs it is none."""
        self.client.xadd(LETTERS, letter("bad_json", 1))
        for to in (LETTERS, "texts:embeddings"):
            _, err = self.dlq("replay", "--to", to, code=64)
            self.assertIn("holds dead letters or outputs", err)
        self.assertEqual(self.client.xlen(LETTERS), 1)

    def test_silent_server(self):
        self.server.send_signal(signal.SIGSTOP)
        try:
            _, err = self.dlq("list", "--redis-timeout", "500ms", code=69)
        finally:
            self.server.send_signal(signal.SIGCONT)
        self.assertIn("no answer within redis.timeout", err)

    @unittest.skipUnless(has_tls(), "this redis-server has no TLS")
    def test_tls(self):
        """Letters larger than a record of TLS; who cannot prove who they are is told so."""
        with TlsBench(BINARY) as bench:
            bench.start()
            for i in range(40):
                bench.client.xadd(LETTERS, letter("bad_json", i, pad="y" * 5000))
            url = f"rediss://localhost:{bench.tls_port}"
            ca, strange = (("--redis-tls-ca", bench.file(name + ".pem"))
                           for name in ("ca", "strange-ca"))
            self.assertEqual(self.dlq("list", *ca, url=url)[0].count("\n"), 40)
            self.assertIn("redis.tls_ca", self.dlq("list", *strange, url=url, code=69)[1])
            plain = f"redis://localhost:{bench.tls_port}"
            self.assertIn("the connection to", self.dlq("list", url=plain, code=69)[1])
            none = f"rediss://localhost:{bench.port}"
            self.assertIn(str(bench.port), self.dlq("list", *ca, url=none, code=69)[1])
            self.assertEqual(self.dlq("replay", *ca, url=url)[0], "40 put back, 0 left, 0 gone\n")
            self.assertEqual(bench.client.xlen("texts"), 40)
            bench.restart(clients="yes")
            # The server's alert may be lost with the connection.
            self.assertRegex(self.dlq("list", *ca, url=url, code=69)[1],
                             "the connection to|certificate required")
            self.dlq("list", *ca, "--redis-tls-cert", bench.file("client.pem"), "--redis-tls-key",
                     bench.file("client.key"), url=url)

    def test_refusals(self):
        nobody = f"redis://127.0.0.1:{free_port()}"
        self.assertIn("refused", self.dlq("list", url=nobody, code=69)[1])
        self.assertIn("--limit", self.dlq("list", "--limit", "few", code=64)[1])
        self.assertIn("expected a value", self.dlq("list", "--code", code=64)[1])
        self.assertIn("unknown flag", self.dlq("list", "--jason", code=64)[1])
        self.assertIn("expected one of list, replay, codes", self.dlq("drop", code=64)[1])
        self.assertIn("--to", self.dlq("replay", "--source", "stdin", code=78)[1])
        self.assertIn("another server", self.dlq("replay", "--redis-output-url", nobody,
                                                 code=78)[1])
        self.assertIn("--sink", self.dlq("list", "--sink", "stdout", code=78)[1])


if __name__ == "__main__":
    unittest.main()
