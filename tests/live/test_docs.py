#!/usr/bin/env python3
"""The examples of README.md, docs/tutorial.md, docs/files.md and docs/redis.md.

The commands are taken out of the pages and run by bash in a folder of their own; what they print is
compared with what the page says. Only ports are others, and what a page starts in a terminal of its
own runs in the background.

Usage: test_docs.py BINARY
"""
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from check_embed import find_model
from ports import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 240


def blocks(page, heading):
    """The blocks of code below a heading."""
    text = (ROOT / page).read_text(encoding="utf-8").split(f"\n## {heading}\n", 1)[1]
    return re.findall(r"^```\n(.*?)^```", text.split("\n## ", 1)[0], re.S | re.M)


def in_background(block, command):
    """The block with that line ended by &, for a reader has it in another terminal."""
    assert f"{command}\n" in block, f"no line {command!r} in\n{block}"
    return block.replace(f"{command}\n", f"{command} &\n")


class Shell:
    """A folder that looks like the clone, in which the commands run."""

    def __init__(self, folder, binary):
        self.folder, self.ports = Path(folder), {}
        (self.folder / "build").mkdir()
        (self.folder / "build" / "embedmill").symlink_to(Path(binary).resolve())
        for name in ("docs", "scripts"):
            (self.folder / name).symlink_to(ROOT / name)
        self.env = {**os.environ, "EMBEDMILL_MODEL": find_model(),
                    "PATH": f"{self.folder}/build:{os.environ['PATH']}"}

    def run(self, commands, code=0):
        """Standard output. What the commands leave in the background ends with them."""
        for port in (6379, 6390, 8080, 9464):
            mine = self.ports.setdefault(port, free_port())
            commands = re.sub(rf"(?<=[: ]){port}\b", str(mine), commands)
        done = subprocess.run(
            ["bash", "-c", "trap 'code=$?; kill $(jobs -p) 2>/dev/null || true; wait; exit $code' "
                           "EXIT\n" + commands],
            cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=SECONDS,
            check=False)
        assert done.returncode == code, f"exit code {done.returncode} of\n{commands}{done.stderr}"
        return done.stdout


def scores(text):
    """{id: score} of what `search` prints."""
    return {name: float(score) for score, name in re.findall(r"(\d\.\d{4})  (\S+)", text)}


def check_scores(said, printed):
    """In the same order, and equal but for the last digits, which differ between CPUs."""
    assert list(said) == list(printed), (said, printed)
    for name in said:
        assert abs(said[name] - printed[name]) < 0.003, (said, printed)


def check_letter(said, printed):
    """A line of `dlq list`, of which only positions differ."""
    said, printed = (re.sub(r"\d{8,}-\d+", "N", line).split() for line in (said, printed))
    assert said == printed, (said, printed)


def test_tutorial(shell):
    index, said = blocks("docs/tutorial.md", "2. Your own texts, without a broker")
    check_scores(scores(said), scores(shell.run("set -e\n" + index)))
    worker, queue, reader = blocks("docs/tutorial.md", "3. The same through a queue")
    worker = in_background(worker, "build/embedmill run --redis-url redis://localhost:6390/0 "
                                   "--redis-stream notes")
    reader = reader.replace(
        "scripts/install-packages quickstart             # msgpack, numpy and redis for Debian's "
        "Python\n", "sleep 2\n")
    assert "install" not in reader, reader
    printed = shell.run(f"set -e\n{worker}until redis-cli -p 6390 ping; do sleep 0.1; done\n{queue}"
                        f"{reader}redis-cli -p 6390 shutdown nosave")
    assert list(scores(printed))[0] == '"bread"', printed
    assert re.search(r"^soup\t768\t1\.0000", printed, re.M), printed


def test_http(shell):
    serve, = blocks("docs/tutorial.md", "4. Questions over HTTP")[:1]
    ask = blocks("docs/tutorial.md", "4. Questions over HTTP")[1]
    serve = serve.replace("build/embedmill serve\n",
                          "build/embedmill serve --http-listen 127.0.0.1:8080 &\n")
    wait = "until curl -s 127.0.0.1:8080/readyz >/dev/null; do sleep 0.2; done\n"
    answer = json.loads(shell.run(serve + wait + ask.replace("curl ", "curl -sS ")))
    assert len(answer["data"][0]["embedding"]) == 768, answer


def test_files(shell):
    index, again, errors = blocks("docs/files.md", "An example")
    page = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    said = re.search(r"This prints `(.*?)` and `(.*?)`\.", page)
    check_scores(scores("\n".join(said.groups())), scores(shell.run("set -e\n" + index)))
    shell.run(again, 65)
    written = (shell.folder / "notes.npy.errors.jsonl").read_text(encoding="utf-8")
    assert json.loads(written) == json.loads(errors), written


def test_redis(shell):
    example, said = blocks("docs/redis.md", "An example")
    printed = shell.run("set -e\n" + example + "redis-cli -p 6390 shutdown nosave\n")
    # Redis 8 begins its log before it has read that it shall be quiet.
    check_letter(said, re.sub(r"(?m)^\d+:[A-Z] .*\n", "", printed))
    assert len((shell.folder / "out.jsonl").read_text("utf-8").splitlines()) == 2


def test_readme(shell):
    """Without a broker: for queries and files."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^Without a broker.*?^```\n(.*?)^```", text, re.S | re.M)[1]
    assert block.count("embedmill serve") == 1, block
    block = re.sub(r"build/embedmill serve.*\n", "", block)
    corpus = "\n".join(f'{{"id": {i}, "text": "{text}"}}' for i, text in
                       enumerate(["The last boat leaves at nine.", "Bake the bread."]))
    (shell.folder / "corpus.jsonl").write_text(corpus + "\n", encoding="utf-8")
    printed = shell.run("set -e\ngzip corpus.jsonl\n" + block)
    assert '"embedding"' in printed, printed[:300]
    assert list(scores(printed))[0] == '"0"', printed[-300:]


def main():
    tests = [test_tutorial, test_http, test_files, test_redis, test_readme]
    for test in tests:
        with tempfile.TemporaryDirectory(prefix="embedmill-docs-") as folder:
            test(Shell(folder, sys.argv[1]))
            print(f"{test.__name__}: ok", flush=True)


if __name__ == "__main__":
    main()
