#!/usr/bin/env python3
"""scripts/bench-pairs.py with two sides that tell times made up: what it makes of them.

The side that stands for llama.cpp takes twice as long with its best ubatch, 512, and longer with
any other; it refuses 256 for long texts, and one of its vectors is off by a known angle.
"""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "bench-pairs.py"

PEER = '''#!{python}
import struct, sys
model, texts, threads, ubatch = sys.argv[1], open(sys.argv[2]).read().splitlines(), \\
    int(sys.argv[3]), int(sys.argv[4])
assert all(text.startswith("title: none | text: ") for text in texts)
ours = {ours}
longest = max(len(text.split()) for text in texts)
if not ours and longest > ubatch:
    sys.exit(2)
seconds = (1.0 if ours else 2.0 if ubatch == 512 else 3.0) / threads
n_calls = 0
print("ready", 0.05 if ours else 0.5, flush=True)
for line in sys.stdin:
    command = line.split()
    if command[0] == "batch":
        n_calls += 1
        print(seconds + 0.001 * n_calls, sum(len(x.split()) for x in texts), seconds * threads)
    elif command[0] == "one":
        print(seconds / 100, 16, seconds * threads / 100)
    elif command[0] == "tokens":
        print(*(len(text.split()) for text in texts))
    elif command[0] == "memory":
        print(*((2048, 1024) if ours else (20480, 10240)))
    elif command[0] == "vectors":
        rows = [(1.0, 0.0)] * len(texts)
        if not ours:
            rows[-1] = (0.6, 0.8)
        open(command[1], "wb").write(b"".join(struct.pack("<2f", *row) for row in rows))
        print(2)
    sys.stdout.flush()
'''


class Pairs(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="embedmill-test-")
        self.addCleanup(self.folder.cleanup)
        for name in ("ours", "theirs"):
            path = Path(self.folder.name) / name
            path.write_text(PEER.format(python=sys.executable, ours=name == "ours"))
            path.chmod(0o755)
        corpus = "".join(f"text number {i} of some words\n" for i in range(40))
        (Path(self.folder.name) / "corpus").write_text(corpus)

    def run_script(self, *arguments):
        folder = Path(self.folder.name)
        return subprocess.run(
            [sys.executable, SCRIPT, "--model", "none", "--ours", folder / "ours", "--theirs",
             folder / "theirs", "--version", "made up", "--quick", "--corpus", folder / "corpus",
             *arguments], text=True, capture_output=True, check=False, timeout=280)

    def test_figures(self):
        run = self.run_script("--threads", "2", "--json")
        self.assertEqual(run.returncode, 0, run.stderr)
        result = json.loads(run.stdout)
        self.assertEqual([(c["name"], c["threads"]) for c in result["batches"]],
                         [(n, t) for t in (1, 2)
                          for n in ("mixed", "16 tokens", "64 tokens", "500 tokens")])
        for case in result["batches"]:
            self.assertAlmostEqual(case["ratio"]["median"], 2.0, delta=0.05)
            self.assertLessEqual(case["ratio"]["min"], case["ratio"]["median"])
            self.assertGreaterEqual(case["ratio"]["max"], case["ratio"]["median"])
            self.assertAlmostEqual(case["cpu_ratio"]["median"], 2.0)
            self.assertEqual(case["ubatch"], 512)
            self.assertTrue(case["tokens_agree"])
            self.assertAlmostEqual(case["cosine"]["min"], 0.6, places=5)
            rate = case["n_tokens"] / sorted(case["ours"]["seconds"])[0]
            self.assertAlmostEqual(case["ours"]["tokens_per_s"], rate, delta=0.01 * rate)
            self.assertEqual(case["theirs"]["anonymous_mib"], 10)
        for case in result["one"]:
            self.assertAlmostEqual(case["ratio"]["median"], 2.0)
            self.assertAlmostEqual(case["ours"]["p99_ms"], 10 / case["threads"])
        self.assertAlmostEqual(result["open"]["ratio"]["median"], 10)
        self.assertAlmostEqual(result["open"]["theirs"]["median_ms"], 500)

    def test_table(self):
        run = self.run_script("--threads", "1")
        self.assertEqual(run.returncode, 0, run.stderr)
        for part in ("500 tokens", "ubatch", "p99 ms", "ratio 10.0", "1 MiB of its own"):
            self.assertIn(part, run.stdout)
        self.assertNotIn("differ", run.stdout)

    def test_a_side_that_fails(self):
        (Path(self.folder.name) / "theirs").write_text("#!/bin/sh\nexit 1\n")
        run = self.run_script("--threads", "1")
        self.assertEqual(run.returncode, 1)
        self.assertIn("ended with code 1", run.stderr)

    def test_no_corpus(self):
        run = self.run_script("--corpus", "/does/not/exist")
        self.assertEqual(run.returncode, 1)
        self.assertIn("--corpus /does/not/exist: No such file", run.stderr)


if __name__ == "__main__":
    unittest.main()
