#!/usr/bin/env python3
"""What a Redis server answers to each kind of refusal, in its own words.

Usage: redis_refusals.py [--root FOLDER] SERVER [OPTION...]

Starts SERVER (a redis-server or valkey-server; with --root, of the system in FOLDER), provokes one
refusal after another, and prints lines for tests/data/redis_refusals.tsv: kind, server, words. A
kind that this server cannot be made to refuse is left out. test_redis_fault.c says what each kind
means. `--fake` instead of a server: Python's fakeredis, which knows few of them.
"""
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

from ports import free_port

SCRIPT = ("local i = 1 while i <= #ARGV do local n = tonumber(ARGV[i]) "
          "redis.call(unpack(ARGV, i + 1, i + n)) i = i + n + 1 end return 1")


class Error(str):
    """An error reply, as it came."""


class Connection:
    """One connection, without a library that would change what the server says."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        self.file = self.socket.makefile("rb")

    def close(self):
        self.file.close()
        self.socket.close()

    def send(self, *words):
        items = [w if isinstance(w, bytes) else str(w).encode() for w in words]
        self.socket.sendall(b"*%d\r\n" % len(items) +
                            b"".join(b"$%d\r\n%s\r\n" % (len(i), i) for i in items))

    def read(self):
        line = self.file.readline()
        if not line:
            raise ConnectionError("closed")
        kind, rest = line[:1], line[1:].strip().decode(errors="replace")
        if kind == b"-":
            return Error(rest)
        if kind == b"$":
            return None if rest == "-1" else self.file.read(int(rest) + 2)[:-2]
        if kind in b"*%":
            n = int(rest) * (2 if kind == b"%" else 1)
            return [self.read() for _ in range(n)]
        return rest

    def __call__(self, *words):
        self.send(*words)
        return self.read()

    def script(self, *words):
        """The same inside a script, as the worker publishes."""
        return self("EVAL", SCRIPT, 0, len(words), *words)


class Server:
    def __init__(self, root, command):
        self.root, self.command, self.folder = root, command, None
        self.port, self.process = free_port(), None

    @contextlib.contextmanager
    def running(self, *options, keep=False):
        if not keep or not self.folder:
            self.folder = tempfile.mkdtemp(prefix="refusals-", dir=(self.root or "") + "/tmp")
        os.chmod(self.folder, 0o777)
        inside = self.folder[len(self.root):] if self.root else self.folder
        chroot = ["chroot", self.root] if self.root else []
        self.process = subprocess.Popen(
            [*chroot, *self.command, "--port", str(self.port), "--bind", "127.0.0.1", "--dir",
             inside, "--save", "", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 20
            while True:
                with contextlib.suppress(OSError):
                    connection = Connection(self.port)
                    break
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError(f"it does not start with {options}")
                time.sleep(0.05)
            yield connection
        finally:
            self.process.kill()
            self.process.wait()
            if not keep:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder = None

    def connect(self):
        return Connection(self.port)


def both(call, name, *words):
    """The same command by itself and in a script."""
    yield name, call(*words)
    yield name + "_script", call.script(*words)


def rights(server):
    with server.running() as call:
        call("ACL", "SETUSER", "w", "on", ">p", "~mine*", "+@all", "-xadd", "-acl", "-xinfo")
        call("AUTH", "w", "p")
        yield from both(call, "noperm_command", "XADD", "mine", "*", "a", "b")
        yield from both(call, "noperm_subcommand", "XINFO", "STREAM", "mine")
        yield from both(call, "noperm_key", "SET", "other", "1")
        yield "wrongpass", call("AUTH", "w", "wrong")
        yield "auth_without_password", call("AUTH", "word")
    with server.running("--requirepass", "p") as call:
        yield "noauth", call("GET", "a")
        yield "wrongpass", call("AUTH", "wrong")
        yield "noauth", call("HELLO", "3")


def data(server):
    with server.running() as call:
        call("SET", "text", "1")
        for words in (("XADD", "text", "*", "a", "b"), ("HSET", "text", "a", "b"),
                      ("XACK", "text", "g", "1-0"), ("XREADGROUP", "GROUP", "g", "c", "STREAMS",
                                                    "text", ">")):
            yield from both(call, "wrongtype", *words)
        call("XADD", "s", "1-1", "a", "b")
        yield from both(call, "nogroup", "XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">")
        yield from both(call, "nogroup", "XPENDING", "s", "g", "-", "+", "1")
        yield from both(call, "nogroup", "XCLAIM", "s", "g", "c", "0", "1-1")
        yield from both(call, "nogroup", "XGROUP", "SETID", "s", "g", "0")
        call("XGROUP", "CREATE", "s", "g", "0")
        yield from both(call, "busygroup", "XGROUP", "CREATE", "s", "g", "0")
        yield from both(call, "no_stream", "XGROUP", "CREATE", "none", "g", "0")
        yield "noscript", call("EVALSHA", "0" * 40, "0")
        yield from both(call, "unknown_command", "XPLUGH", "s")
        yield from both(call, "syntax", "XADD", "s", "*", "a")
        yield from both(call, "syntax", "SET", "s", "1", "PLUGH")
        call("XADD", "full", "18446744073709551615-18446744073709551615", "a", "b")
        yield from both(call, "full_stream", "XADD", "full", "*", "a", "b")
        yield from both(call, "no_database", "SELECT", "99")
        yield "no_protocol", call("HELLO", "9")
        yield from both(call, "too_large", "SETRANGE", "a", str(1 << 29), "x")
        other = server.connect()
        other("XGROUP", "CREATE", "s2", "g", "0", "MKSTREAM")
        other.send("XREADGROUP", "GROUP", "g", "c", "BLOCK", "9000", "STREAMS", "s2", ">")
        time.sleep(0.2)
        call("DEL", "s2")
        yield "unblocked", other.read()
        other.send("XREADGROUP", "GROUP", "g", "c", "BLOCK", "9000", "STREAMS", "s", ">")
        assert other.read()
        other.send("XREADGROUP", "GROUP", "g", "c", "BLOCK", "9000", "STREAMS", "s", ">")
        time.sleep(0.2)
        call("XGROUP", "DESTROY", "s", "g")
        yield "nogroup", other.read()
    with server.running("--proto-max-bulk-len", "1mb") as call:
        yield "too_large_wire", call("SET", "a", "x" * (2 << 20))
    with server.running() as call:
        call.socket.sendall(b"*1100000\r\n$4\r\nMSET\r\n")
        call.socket.settimeout(1)
        with contextlib.suppress(TimeoutError):
            yield "too_many_words", call.read()
    with server.running() as call:
        call.socket.sendall(b"*1\r\nx\r\n")
        yield "protocol", call.read()


def states(server):
    with server.running("--maxmemory-policy", "noeviction") as call:
        call("CONFIG", "SET", "maxmemory", "1")
        yield from both(call, "oom", "XADD", "s", "*", "a", "b")
    with server.running("--min-replicas-to-write", "1") as call:
        yield from both(call, "noreplicas", "XADD", "s", "*", "a", "b")
    with server.running() as call:
        call("SLAVEOF", "127.0.0.1", "1")
        yield from both(call, "readonly", "XADD", "s", "*", "a", "b")
    with server.running("--replica-serve-stale-data", "no") as call:
        call("SLAVEOF", "127.0.0.1", "1")
        yield from both(call, "masterdown", "GET", "s")
    with server.running("--save", "3600 1") as call:
        call("SET", "a", "1")
        shutil.rmtree(server.folder)
        call("BGSAVE")
        time.sleep(0.5)
        yield from both(call, "misconf", "XADD", "s", "*", "a", "b")
    with server.running("--maxclients", "1"):
        other = server.connect()
        yield "max_clients", other.read()
    with server.running(keep=True) as call:
        for i in range(100):
            call("SET", f"k{i}", os.urandom(1000))
        call("SAVE")
    with server.running("--key-load-delay", "100000", "--loading-process-events-interval-bytes",
                        "1024", keep=True):
        call = server.connect()
        yield "loading", call("GET", "k1")
    shutil.rmtree(server.folder)
    server.folder = None


def busy(server):
    with server.running("--lua-time-limit", "10") as call:
        for name, first in (("killed", ""), ("unkillable", "redis.call('SET', 'a', '1') ")):
            other = server.connect()
            other.send("EVAL", first + "while true do end", "0")
            time.sleep(0.5)
            yield "busy", call("XADD", "s", "*", "a", "b")
            yield "busy", call("EVALSHA", "0" * 40, "0")
            said = call("SCRIPT", "KILL")
            yield name, other.read() if name == "killed" else said


def cluster(server):
    with server.running("--cluster-enabled", "yes") as call:
        yield "clusterdown", call("XADD", "s", "*", "a", "b")
        yield "not_here_script", call.script("XADD", "s", "*", "a", "b")
        yield "clusterdown", call("EVAL", "return redis.call('GET', KEYS[1])", 1, "s")
        call("CLUSTER", "ADDSLOTS", *range(16384))
        deadline = time.monotonic() + 10
        while b"cluster_state:ok" not in call("CLUSTER", "INFO") and time.monotonic() < deadline:
            time.sleep(0.1)
        yield "crossslot", call("MSET", "a", "1", "b", "2")
        yield "crossslot", call("EVAL", "return 1", 2, "a", "b")
        yield "no_cluster_database", call("SELECT", "1")
        yield "crossslot_script", call("EVAL", "#!lua\nredis.call('SET', KEYS[1], 1) return "
                                       "redis.call('SET', ARGV[1], 1)", 1, "a", "c")
        call("CLUSTER", "DELSLOTS", call("CLUSTER", "KEYSLOT", "b"))
        time.sleep(1)
        yield "clusterdown", call("SET", "b", "1")
        yield "clusterdown", call("EVAL", "return 1", 1, "a")


def fake_refusals(server):
    call = server.connect()
    call("SET", "text", "1")
    yield from both(call, "wrongtype", "XADD", "text", "*", "a", "b")
    call("XADD", "s", "1-1", "a", "b")
    yield from both(call, "nogroup", "XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">")
    yield from both(call, "nogroup", "XPENDING", "s", "g", "-", "+", "1")
    call("XGROUP", "CREATE", "s", "g", "0")
    yield from both(call, "busygroup", "XGROUP", "CREATE", "s", "g", "0")
    yield "noscript", call("EVALSHA", "0" * 40, "0")
    yield from both(call, "unknown_command", "XPLUGH", "s")
    yield "no_database", call("SELECT", "99")


class Fake:
    """fakeredis behind a socket."""

    def __init__(self):
        import fakeredis
        self.version = fakeredis.__version__ if hasattr(fakeredis, "__version__") else ""
        self.port = free_port()
        server = fakeredis.TcpFakeServer(("127.0.0.1", self.port), server_type="redis")
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def connect(self):
        return Connection(self.port)


def collect(kind_of_server, server, *groups):
    seen = set()
    for group in groups:
        lines = group(server)
        while True:
            try:
                kind, said = next(lines)
            except StopIteration:
                break
            except (ConnectionError, RuntimeError, TimeoutError, OSError) as error:
                print(f"{group.__name__}: {error}", file=sys.stderr)
                break
            if not isinstance(said, Error) or "Error compiling" in said:
                print(f"{kind}: no error but {said!r}", file=sys.stderr)
            elif (kind, said) not in seen:
                seen.add((kind, said))
                print(f"{kind}\t{kind_of_server}\t{said}", flush=True)


def main():
    words, root = sys.argv[1:], None
    if words == ["--fake"]:
        import importlib.metadata
        collect("fakeredis " + importlib.metadata.version("fakeredis"), Fake(), fake_refusals)
        return
    if words[:1] == ["--root"]:
        root, words = words[1], words[2:]
    if not words:
        sys.exit(__doc__)
    chroot = ["chroot", root] if root else []
    said = subprocess.run([*chroot, words[0], "--version"], text=True, check=True,
                          capture_output=True).stdout
    name = "Valkey" if "Valkey" in said else "Redis"
    server = Server(root, words)
    collect(f"{name} {re.search(r'v=([0-9.]+)', said)[1]}", server, rights, data, states, busy,
            cluster)


if __name__ == "__main__":
    main()
