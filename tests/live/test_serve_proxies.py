#!/usr/bin/env python3
"""nginx and HAProxy, with the configurations of scripts/deploy/proxy, before three workers: one is
killed and one drained under load, and no request fails.

Usage: test_serve_proxies.py EMBEDMILL [nginx|haproxy ...]
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

PROXIES = sys.argv[2:] or ["nginx", "haproxy"]
sys.argv[2:] = []
from serve_rig import SMALL, Server, receive, send, wait_for # noqa: E402
from ports import free_port # noqa: E402
import socket # noqa: E402

CONFIGS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts", "deploy",
                       "proxy")
SBIN = os.environ["PATH"] + ":/usr/sbin:/sbin"


def start(name, folder, port, workers):
    """The proxy, with our ports in place of those of its configuration."""
    file = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}[name]
    with open(os.path.join(CONFIGS, file), encoding="utf-8") as f:
        text = f.read()
    for number, address in enumerate(["127.0.0.1:%d" % port, *workers]):
        text, n = re.subn(rf"127\.0\.0\.1:808{number}\b", address, text)
        assert n == 1
    text = text.replace("/tmp/embedmill-nginx.pid", f"{folder}/pid")
    path = os.path.join(folder, file)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    program = shutil.which(name, path=SBIN)
    command = ([program, "-p", folder, "-c", path, "-g", "daemon off;"] if name == "nginx" else
               [program, "-db", "-f", path])
    with open(os.path.join(folder, "log"), "w", encoding="utf-8") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def ask(port, i):
    """Its status; a connection of its own, as most clients have."""
    with socket.create_connection(("127.0.0.1", port), 60) as s:
        send(s, "/v1/embeddings", {"input": f"request {i} through a proxy"})
        answer = receive(s)
    return answer.status if answer else "closed"


def check(name):
    folder = tempfile.mkdtemp(prefix="embedmill-proxy-")
    servers = [Server("--cache-memory", "0", "--threads", "1", model=SMALL) for _ in range(3)]
    port = free_port()
    proxy = start(name, folder, port, [server.address for server in servers])
    outcomes, lock, ended = [], threading.Lock(), threading.Event()

    def client(number):
        i = 0
        while not ended.is_set():
            try:
                status = ask(port, f"{number}-{i}")
            except OSError as e:
                status = repr(e)
            with lock:
                outcomes.append(status)
            i += 1

    def reaches():
        try:
            return ask(port, "first") == 200
        except OSError:
            return False
    try:
        wait_for(f"{name} to answer", reaches)
        clients = [threading.Thread(target=client, args=(n,)) for n in range(8)]
        for thread in clients:
            thread.start()
        wait_for("load", lambda: len(outcomes) > 40)
        servers[0].process.kill()
        n_killed = len(outcomes)
        wait_for("load after the kill", lambda: len(outcomes) > n_killed + 60)
        servers[1].process.terminate()
        assert servers[1].process.wait(60) == 0, servers[1].log()
        n_drained = len(outcomes)
        wait_for("load after the drain", lambda: len(outcomes) > n_drained + 60)
        ended.set()
        for thread in clients:
            thread.join()
        failed = [status for status in outcomes if status != 200]
        assert not failed, f"{name}: {len(failed)} of {len(outcomes)}: {failed[:5]}"
        print(f"{name}: {len(outcomes)} requests, one worker killed and one drained, none failed",
              flush=True)
    finally:
        ended.set()
        proxy.terminate()
        proxy.wait(30)
        for server in servers:
            server.__exit__()
        shutil.rmtree(folder)


def main():
    absent = [name for name in PROXIES if not shutil.which(name, path=SBIN)]
    if absent or not os.path.exists(SMALL):
        print(f"skipped: {', '.join(absent) or 'the model of scripts/get-minilm'} is not there")
        sys.exit(77)
    for name in PROXIES:
        began = time.monotonic()
        check(name)
        print(f"{name}: ok, {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()
