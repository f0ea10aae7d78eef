"""The programs that are compared, each a process that answers commands (tests/bench/peer.c)."""

import dataclasses
import struct
import subprocess
import sys
import time
from pathlib import Path

PAUSE = 0.03 # seconds; OpenMP's threads spin for some milliseconds after their work
LONG = 1.0 # second: a single run tells two settings apart
UNFIT = 2
UBATCHES = (256, 512, 1024, 2048)


class Unfit(Exception):
    """A text is longer than the ubatch."""


class Process:
    def __init__(self, command):
        began = time.perf_counter()
        self.process = subprocess.Popen([str(word) for word in command], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.read()
        self.start = time.perf_counter() - began # of the process to its first vector

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            if code == UNFIT:
                raise Unfit
            sys.exit(f"bench-peers: {self.process.args[0]} ended with code {code}")
        return line

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.read()

    def times(self, command):
        """Seconds on the clock, and of all CPUs together."""
        time.sleep(PAUSE)
        seconds, _, cpu_seconds = self.ask(command).split()
        return float(seconds), float(cpu_seconds)

    def memory(self):
        resident, anonymous = self.ask("memory").split()
        return {"resident_mib": int(resident) / 1024, "anonymous_mib": int(anonymous) / 1024}

    def vectors(self, folder):
        path = Path(folder) / "vectors"
        dim = int(self.ask(f"vectors {path}"))
        return list(struct.iter_unpack(f"<{dim}f", path.read_bytes()))

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@dataclasses.dataclass
class Texts:
    """One case: the same texts as lines and as token ids."""

    lines: Path
    ids: Path
    n: int
    n_tokens: int = 0


class Side:
    """An engine with one precision. tune() finds the setting that is its fastest for some texts."""

    is_ours = False

    def __init__(self, name, files):
        self.name, self.files = name, files
        self.process = self.setting = None
        self.threads = 0

    def open(self, texts, threads):
        self.threads = threads
        self.process = Process(self.command(texts))
        return self.process.start

    def close(self):
        self.process.close()

    def command(self, texts):
        raise NotImplementedError

    def take(self, texts):
        self.process.ask(f"texts {texts.lines}")

    def tune(self, texts, command):
        self.take(texts)
        self.process.ask(command)

    def once_warm(self, command):
        """Seconds that a command takes when the engine has seen its shapes before."""
        self.process.ask(command)
        seconds, _ = self.process.times(command)
        return seconds if seconds > LONG else min(seconds, self.process.times(command)[0])

    def fastest(self, settings, apply, command):
        """Apply the one of the settings with which the command takes the least time."""
        found = []
        for setting in settings:
            try:
                apply(setting)
                found.append((self.once_warm(command), setting))
            except Unfit:
                continue
        self.setting = min(found)[1]
        apply(self.setting)


class Ours(Side):
    is_ours = True

    def __init__(self, precision, files):
        super().__init__(f"embedmill {precision}", files)
        self.precision = precision

    def command(self, texts):
        return [self.files.ours, self.files.model, texts.lines, self.threads, self.precision]


class LlamaCpp(Side):
    def __init__(self, files):
        super().__init__("llama.cpp", files)
        self.setting = UBATCHES[-1]

    def command(self, texts):
        return [self.files.llamacpp, self.files.model, texts.lines, self.threads, self.setting]

    def tune(self, texts, command):
        def again(ubatch):
            if self.process.process.poll() is None:
                self.process.close()
            self.setting = ubatch
            self.process = Process(self.command(texts))
        self.fastest(UBATCHES, again, command)
        self.process.ask(command)


class Python(Side):
    def __init__(self, engine, precision, files):
        super().__init__(f"{engine} {precision}", files)
        self.engine, self.precision = engine, precision

    def command(self, texts):
        return [self.files.python, "-m", "bench_peers.peer", self.engine, self.files.folder,
                texts.ids, self.threads, self.precision]

    def take(self, texts):
        self.process.ask(f"texts {texts.ids}")

    def tune(self, texts, command):
        self.take(texts)
        sizes = sorted({min(size, texts.n) for size in (4, 16, 64)})
        if command == "one":
            sizes = [1]
        self.fastest(sizes, lambda size: self.process.ask(f"size {size}"), command)
