#!/usr/bin/env python3
"""The examples of docs/rabbitmq.md, nats.md and postgres.md: each block as it stands but for ports,
in a folder of its own, and what the page says comes of it. That of docs/redis.md: test_docs.py.

Usage: test_examples.py EMBEDMILL [PAGE ...]

rabbitmqadmin is told the port of the management plugin. Without a `nats` on the PATH the streams of
that page are made by the tests' own client.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import nats_rig
import rabbitmq_bench
from cases import find_cases, run_cases, shared
from check_embed import find_model
from postgres_bench import Postgres, programs
from redis_bench import Bench

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


def example_of(page):
    """(what to type, what is shown of it) of a page."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    section = text.partition("\n## An example\n")[2].partition("\n## ")[0]
    script, shown = re.findall(r"^```\n(.*?)^```$", section, re.M | re.S)
    return script, shown


def replace(text, old, new):
    """What is not there cannot be replaced, and would be tried on somebody else's server."""
    assert old in text, f"the example has no {old}"
    return text.replace(old, new)


class Shell:
    """Runs an example; what it leaves in the background is ended."""

    def __init__(self, binary, folder):
        self.folder = Path(folder) / "example"
        self.folder.mkdir()
        self.path = [str(Path(binary).resolve().parent)]
        self.shell = None
        self.model = find_model()

    def run(self, script, **env):
        """All that it prints."""
        kept = {name: value for name, value in os.environ.items()
                if not name.startswith("EMBEDMILL_")}
        log = self.folder / "log"
        with open(log, "ab") as out:
            self.shell = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", script], cwd=self.folder, stdout=out, stderr=out,
                stdin=subprocess.DEVNULL, start_new_session=True,
                env={**kept, "EMBEDMILL_MODEL": self.model, **env,
                     "PATH": ":".join([*self.path, kept["PATH"]])})
        code = self.shell.wait(timeout=120)
        said = log.read_text(encoding="utf-8")
        assert code == 0, f"exit code {code}: {said[-3000:]}"
        return said

    def end(self):
        if not self.shell:
            return
        try:
            os.killpg(self.shell.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.shell.wait()

    def check_outputs(self, said, shown):
        """Two vectors, and the dead letter that the page shows; places and times are others."""
        lines = (self.folder / "out.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == 2, lines
        # A terminal is shown columns, a file tabs.
        wanted = re.split(" {3,}", shown.strip())
        found = [line.split("\t") for line in said.splitlines() if "\tbad_field\t" in line]
        assert len(found) == 1 and found[0][1::2] == wanted[1::2], (said, wanted)


def case_rabbitmq(given):
    script, shown = example_of("rabbitmq")
    with rabbitmq_bench.Bench(given.binary) as bench:
        bench.start_server()
        shell = Shell(given.binary, bench.folder)
        admin = shutil.which("rabbitmqadmin")
        assert admin, "rabbitmqadmin comes with rabbitmq-server"
        tool = shell.folder / "rabbitmqadmin"
        tool.write_text(f'#!/bin/sh\nexec {admin} --port {bench.management} "$@"\n')
        tool.chmod(0o755)
        shell.path.append(str(shell.folder))
        try:
            said = shell.run(replace(script, "amqp://localhost", bench.url))
            shell.check_outputs(said, shown)
        finally:
            shell.end()


def case_nats(given):
    script, shown = example_of("nats")
    with nats_rig.Bench(given.binary) as bench:
        bench.configure()
        shell = Shell(given.binary, bench.folder)
        begin, loop, rest = re.fullmatch(r"(nats-server -js &\n)(.*?done\n)(.*)", script,
                                         re.S).groups()
        begin = replace(begin, "-js", f"-c {bench.folder}/nats.conf")
        rest = replace(rest, "localhost:4222", f"127.0.0.1:{bench.port}")
        try:
            if shutil.which("nats"):
                said = shell.run(begin + loop + rest, NATS_URL=f"nats://127.0.0.1:{bench.port}")
            else:
                print("NOT RUN: the streams are made by the tests: no nats is on the PATH")
                bench.start_server()
                for name in ("notes", "notes-embeddings", "notes-dlq"):
                    bench.client().make_stream(name)
                said = shell.run(rest)
            shell.check_outputs(said, shown)
        finally:
            shell.end()


def case_postgres(given):
    source = programs()
    if not source:
        print("NOT RUN: no PostgreSQL with pgvector can be had (scripts/get-postgres)")
        return
    script, shown = example_of("postgres")
    postgres = Postgres(source)
    with Bench(given.binary) as bench:
        bench.start_server()
        shell = Shell(given.binary, bench.folder)
        shell.path.append(str(postgres.bin))
        script = replace(script, "postgresql://postgres@localhost/search",
                         f"postgresql://postgres@127.0.0.1:{postgres.port}/search")
        script = replace(script, "localhost:6379", f"127.0.0.1:{bench.port}")
        try:
            postgres.create()
            postgres.start()
            postgres.sql("CREATE DATABASE search")
            said = shell.run(script)
            rows, letters = (re.findall(r"^ *(\w+) *\| (.*?)(?: *\|.*)?$", text, re.M)
                             for text in (said, shown))
            assert {row[0] for row in rows} == {row[0] for row in letters}, (rows, letters)
            reason = dict(letters)["bad_field"].strip()
            assert dict(rows)["bad_field"].strip() == reason, rows
        finally:
            shell.end()
            postgres.close()


def main():
    with tempfile.TemporaryDirectory() as folder:
        given = types.SimpleNamespace(binary=sys.argv[1], folder=folder)
        return run_cases(find_cases(globals()), sys.argv[2:], shared(given))


if __name__ == "__main__":
    sys.exit(main())
