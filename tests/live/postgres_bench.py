"""A private PostgreSQL with pgvector, for the tests in Python; gone at the end."""
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import redis_bench
from cases import find_cases, run_cases
from ports import free_port

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parent.parent / "scripts"
DIM = 128
# Not slower, and not what is tested: a test that kills the server, not the machine, loses nothing.
QUICK = ("-c", "fsync=off", "-c", "max_connections=30", "-c", "shared_buffers=32MB")


def programs():
    """The folder of the programs, or None where it cannot be had."""
    found = subprocess.run([SCRIPTS / "get-postgres"], capture_output=True, text=True, check=False)
    return Path(found.stdout.strip()) if found.returncode == 0 else None


class Postgres:
    """One server in a folder of its own, as another user where we are root, which it refuses to
    run as. The programs are copied: that user may have no way to where they are."""

    def __init__(self, source):
        self.folder = Path(tempfile.mkdtemp(prefix="embedmill-pg-"))
        self.port, self.process, self.who = free_port(), None, {}
        home = self.folder / "home"
        if source.parent.name == "pginstall": # with its libraries in a folder beside it
            shutil.copytree(source.parent.parent.parent, home, symlinks=True)
            self.bin = home / source.parent.parent.name / "pginstall" / "bin"
        elif (source.parent / "share").is_dir(): # it finds all it needs beside itself
            shutil.copytree(source.parent, home, symlinks=True)
            self.bin = home / source.name
        else:
            self.bin = source
        if os.getuid() == 0:
            self.folder.chmod(0o755)
            for name in ("data", "log"):
                (self.folder / name).mkdir()
                shutil.chown(self.folder / name, "nobody", "nogroup")
            self.who = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        self.data = self.folder / "data" / "pg"

    @property
    def host(self):
        return str(self.folder / "log")

    def url(self, user="postgres", database="postgres", **more):
        """By TCP."""
        words = "&".join(f"{key}={value}" for key, value in more.items())
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}{'?' if words else ''}{words}"

    def run(self, program, *words, **options):
        return subprocess.run([self.bin / program, *words], capture_output=True, text=True,
                              check=True, cwd=self.folder / "data", **self.who, **options)

    def create(self, *extra):
        self.run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
                 "--no-sync", *extra)

    def start(self, *extra, wait=True):
        log = open(self.folder / "log" / "server.log", "ab")
        self.process = subprocess.Popen(
            [self.bin / "postgres", "-D", self.data, "-k", self.host, "-h", "127.0.0.1", "-p",
             str(self.port), *QUICK, *extra], cwd=self.folder / "data", stdout=log, stderr=log,
            start_new_session=True, **self.who)
        if wait:
            redis_bench.wait_for("PostgreSQL answering", lambda: self.answers(), 60)

    def answers(self):
        return subprocess.run([self.bin / "pg_isready", "-q", "-h", self.host, "-p",
                               str(self.port)], check=False).returncode == 0

    def backends(self):
        """The server's processes: not of its process group each, but its children."""
        pid = self.process.pid
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True,
                                text=True, check=False).stdout.split()
        return [pid, *map(int, listed)]

    def signal(self, number):
        for pid in self.backends():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def kill(self):
        """As a machine that loses its power, but for what the kernel still writes."""
        self.signal(signal.SIGKILL)
        self.process.wait()
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.kill()

    def close(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def sql(self, text, database="postgres", user="postgres"):
        """Rows of what the last statement found, as lists of text."""
        done = subprocess.run(
            [self.bin / "psql", "-X", "-q", "-A", "-t", "-F", "\x1f", "-R", "\x1e", "-v",
             "ON_ERROR_STOP=1", "-h", self.host, "-p", str(self.port), "-U", user, "-d", database],
            input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"psql: {done.stderr}\n{text}")
        rows = done.stdout.removesuffix("\n")
        return [row.split("\x1f") for row in rows.split("\x1e")] if done.stdout else []

    def one(self, text, **more):
        [[value]] = self.sql(text, **more)
        return value

    def log(self):
        return (self.folder / "log" / "server.log").read_text(errors="replace")


class Bench(redis_bench.Bench):
    """A Redis as the input, a PostgreSQL as the output, workers between them."""

    def __init__(self, binary, source):
        super().__init__(binary)
        self.pg = Postgres(source)

    def __exit__(self, *error):
        super().__exit__(*error)
        self.pg.close()

    def start_both(self, *extra):
        self.start_server()
        self.pg.create()
        self.pg.start(*extra)
        self.make_tables()

    def schema(self, *extra):
        """What `embedmill schema` prints."""
        return subprocess.run(
            [self.binary, "schema", "--sink", "postgres", "--dim", str(DIM), *extra],
            env={**os.environ, "EMBEDMILL_MODEL": self.model}, capture_output=True, text=True,
            check=True).stdout

    def make_tables(self, *extra, **more):
        self.pg.sql(self.schema(*extra), **more)

    def start_sink(self, *extra, url=None, name="w", cache="16MiB"):
        return self.start_worker(
            "--sink", "postgres", "--postgres-url", url or self.pg.url(), "--dim", str(DIM),
            "--cache-memory", cache, "--postgres-timeout", "3s", *extra, name=name)

    def rows(self, table="embeddings"):
        return int(self.pg.one(f"SELECT count(*) FROM {table}"))

    def wait_rows(self, n, seconds=60):
        redis_bench.wait_for(f"{n} rows", lambda: self.rows() >= n, seconds)
        self.wait_acked(seconds)
        assert self.rows() == n, self.rows()

    def wait_acked(self, seconds=60):
        def is_done():
            groups = self.client.xinfo_groups("texts")
            return groups and groups[0]["pending"] == 0 and not groups[0]["lag"]
        redis_bench.wait_for("all acked", is_done, seconds)


def run_all(module, binary, only):
    """The cases of a test, each on servers of its own; 77 where there can be none."""
    source = programs()
    if not source:
        print("SKIPPED: no PostgreSQL with pgvector can be had (scripts/get-postgres)")
        return 77
    return run_cases(find_cases(module), only, lambda name: Bench(binary, source))


def settle(seconds):
    """For what cannot be waited for: that nothing happens."""
    time.sleep(seconds)
