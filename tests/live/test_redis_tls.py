#!/usr/bin/env python3
"""rediss:// against a real redis-server with TLS: texts go through, and whoever cannot prove who
they are gets a sentence that says what to do.

Usage: test_redis_tls.py EMBEDMILL
"""
import os
import socket
import subprocess
import sys

import redis

from ports import free_port
from redis_bench import Bench, has_tls, wait_for

N_TEXTS = 5


def openssl(*words, cwd):
    subprocess.run(["openssl", *words], cwd=cwd, check=True, capture_output=True)


def make_certificates(folder):
    """Two authorities; one has signed for localhost, for another host, and for a client."""
    for ca in ("ca", "strange-ca"):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                "-nodes", "-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-subj", f"/CN={ca}",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign", # Python 3.13 asks for it
                "-days", "2", cwd=folder)
    for name, alt in (("server", "DNS:localhost,IP:127.0.0.1"), ("other", "DNS:other.example"),
                      ("client", "DNS:client")):
        with open(os.path.join(folder, f"{name}.ext"), "w", encoding="ascii") as f:
            f.write(f"subjectAltName={alt}\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}",
                cwd=folder)
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-out", f"{name}.pem", "-days", "2", "-extfile", f"{name}.ext",
                cwd=folder)


class TlsBench(Bench):
    def __init__(self, binary):
        super().__init__(binary)
        make_certificates(self.folder)
        self.tls_port = free_port()

    def file(self, name):
        return os.path.join(self.folder, name)

    def start(self, certificate="server", clients="no"):
        self.start_server("--tls-port", str(self.tls_port), "--tls-ca-cert-file",
                          self.file("ca.pem"), "--tls-cert-file", self.file(f"{certificate}.pem"),
                          "--tls-key-file", self.file(f"{certificate}.key"),
                          "--tls-auth-clients", clients)

    def restart(self, **how):
        self.server.kill()
        self.server.wait()
        self.start(**how)

    def worker(self, *extra, host="localhost", ca="ca.pem"):
        url = f"rediss://{host}:{self.tls_port}"
        return self.start_worker("--redis-url", url, "--redis-tls-ca", self.file(ca), *extra)

    def expect_log(self, phrase):
        try:
            wait_for(phrase, lambda: phrase in self.log())
        finally:
            if phrase not in self.log():
                print(self.log())

    def expect_refusal(self, phrase, *extra, **how):
        """The worker says so, waits, and still ends in good order."""
        worker = self.worker(*extra, **how)
        self.expect_log(phrase)
        self.stop(worker)
        os.remove(self.file("log-w"))


def test_texts_go_through(bench):
    for host in ("localhost", "127.0.0.1"):
        bench.client.flushall()
        worker = bench.worker(host=host)
        bench.add(0, N_TEXTS)
        # larger than a TLS record, in both directions
        bench.client.xadd("texts", {"text": "long", "pad": "y" * 100000, "id": str(N_TEXTS)})
        bench.expect_once(N_TEXTS + 1)
        bench.client.client_kill_filter(_type="normal", skipme=True)
        bench.add(N_TEXTS + 1, N_TEXTS)
        bench.expect_once(2 * N_TEXTS + 1)
        bench.stop(worker)


def test_doctor(bench):
    for ca, code, phrase in (("ca.pem", 0, "answers over TLS"),
                             ("strange-ca.pem", 69, "redis.tls_ca names the authority")):
        run = subprocess.run([bench.binary, "doctor", "--model", bench.model, "--redis-url",
                              f"rediss://localhost:{bench.tls_port}", "--redis-tls-ca",
                              bench.file(ca)], capture_output=True, text=True, check=False,
                             timeout=120)
        assert run.returncode == code and phrase in run.stdout, (run.returncode, run.stdout)


def test_refused(bench):
    bench.expect_refusal("redis.tls_ca names the authority", ca="strange-ca.pem")
    bench.restart(certificate="other")
    bench.expect_refusal("hostname mismatch (the URL must name the server")
    bench.expect_refusal("IP address mismatch", host="127.0.0.1")
    bench.restart(clients="yes")
    bench.expect_refusal("redis.tls_cert")


def test_client_certificate(bench):
    bench.client.flushall()
    worker = bench.worker("--redis-tls-cert", bench.file("client.pem"), "--redis-tls-key",
                          bench.file("client.key"))
    bench.add(0, N_TEXTS)
    bench.expect_once(N_TEXTS)
    bench.stop(worker)


def test_no_tls_there(bench):
    """A plain port, and one that says nothing at all."""
    os.remove(bench.file("log-w"))
    port, bench.tls_port = bench.tls_port, bench.port
    bench.expect_refusal("does this port speak TLS")
    run = subprocess.run([bench.binary, "doctor", "--model", bench.model, "--redis-url",
                          f"redis://localhost:{port}"], capture_output=True, text=True,
                         check=False, timeout=120)
    assert run.returncode == 69 and "does this port speak TLS, rediss://?" in run.stdout, run
    run = subprocess.run([bench.binary, "doctor", "--model", bench.model, "--redis-url",
                          f"redis://localhost:{bench.port}", "--redis-tls-ca",
                          bench.file("ca.pem")], capture_output=True, text=True, check=False,
                         timeout=120)
    assert run.returncode == 0 and "not encrypted" in run.stdout, run
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bench.tls_port = silent.getsockname()[1]
        bench.expect_refusal("no answer to the TLS handshake", host="127.0.0.1")
    bench.tls_port = port


def test_bad_files(bench):
    for words, phrase in (
            (("--redis-tls-ca", "/nowhere.pem"), "'/nowhere.pem' is none: No such file"),
            (("--redis-tls-cert", bench.file("client.pem")), "go together"),
            (("--redis-tls-cert", bench.file("client.pem"), "--redis-tls-key",
              bench.file("server.key")), "the PEM key of that certificate")):
        run = subprocess.run([bench.binary, "run", "--model", bench.model, "--redis-url",
                              "rediss://localhost", *words], capture_output=True, text=True,
                             check=False, timeout=60)
        assert run.returncode in (64, 78) and phrase in run.stderr, (run.returncode, run.stderr)


def main():
    tests = (test_texts_go_through, test_doctor, test_refused, test_client_certificate,
             test_no_tls_there, test_bad_files)
    if not has_tls():
        print("skipped: this redis-server has no TLS")
        sys.exit(77)
    with TlsBench(sys.argv[1]) as bench:
        bench.start()
        for test in tests:
            print(test.__name__, flush=True)
            test(bench)
    print(f"{len(tests)} passed, 0 failed")


if __name__ == "__main__":
    try:
        main()
    except redis.exceptions.RedisError as error:
        sys.exit(f"the test's own client: {error}")
