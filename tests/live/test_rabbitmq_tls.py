#!/usr/bin/env python3
"""amqps:// against a real rabbitmq-server: texts go through, by password or by certificate, and
whoever cannot prove who they are gets a sentence that says what to do.

Usage: test_rabbitmq_tls.py EMBEDMILL
"""
import os
import sys

from rabbitmq_bench import Bench, wait_for
from test_redis_tls import make_certificates

CONF = {
    "listeners.ssl.default": "127.0.0.1:{tls_port}",
    "listeners.ssl.other": "127.0.0.2:{tls_port}",
    "ssl_options.cacertfile": "{folder}/ca.pem",
    "ssl_options.certfile": "{folder}/server.pem",
    "ssl_options.keyfile": "{folder}/server.key",
    "ssl_options.verify": "verify_peer",
    "ssl_options.fail_if_no_peer_cert": "false",
    "auth_mechanisms.1": "PLAIN",
    "auth_mechanisms.2": "EXTERNAL",
    "ssl_cert_login_from": "common_name",
}


def check_serves(bench, queue, url, *extra):
    bench.declare(queue, f"{queue}-embeddings", f"{queue}-dlq")
    bench.add(0, 5, queue)
    worker = bench.start_worker("--rabbitmq-queue", queue, *extra, url=url, name=queue)
    wait_for("5 outputs", lambda: bench.length(f"{queue}-embeddings") == 5)
    bench.stop(worker)
    assert bench.length(queue) == 0


def check_refused(bench, name, words, url, *extra, code=None):
    """It says so and tries again, or ends with that code."""
    worker = bench.start_worker(*extra, url=url, name=name)
    if code is None:
        wait_for(words, lambda: words in bench.log(name))
        bench.stop(worker)
    else:
        assert worker.wait(timeout=30) == code, bench.log(name)
        assert words in bench.log(name), bench.log(name)


def main():
    with Bench(sys.argv[1], CONF, ["rabbitmq_auth_mechanism_ssl"]) as bench:
        make_certificates(bench.folder)
        bench.start_server()
        bench.ctl("add_user", "client", "unused")
        bench.ctl("set_permissions", "client", "", ".*", ".*")
        bench.ctl("add_user", "w", "pw")
        bench.ctl("set_permissions", "w", "", ".*", ".*")
        ca = ("--rabbitmq-tls-ca", os.path.join(bench.folder, "ca.pem"))
        own = ("--rabbitmq-tls-cert", os.path.join(bench.folder, "client.pem"),
               "--rabbitmq-tls-key", os.path.join(bench.folder, "client.key"))
        at = f"localhost:{bench.tls_port}"
        check_serves(bench, "by-password", f"amqps://w:pw@{at}", *ca)
        check_serves(bench, "by-certificate", f"amqps://{at}", *ca, *own)
        check_refused(bench, "strange", "rabbitmq.tls_ca names the authority",
                      f"amqps://w:pw@{at}", "--rabbitmq-tls-ca",
                      os.path.join(bench.folder, "strange-ca.pem"))
        check_refused(bench, "name", "must name the server as its certificate does",
                      f"amqps://w:pw@127.0.0.2:{bench.tls_port}", *ca)
        check_refused(bench, "plain-here", "does this port speak TLS", f"amqp://w:pw@{at}")
        check_refused(bench, "tls-there", "TLS", f"amqps://w:pw@127.0.0.1:{bench.port}", *ca)
        check_refused(bench, "wrong", "correct user and password", f"amqps://w:no@{at}", *ca,
                      code=69)
        run = bench.run("doctor", "--source", "rabbitmq", "--sink", "rabbitmq", "--rabbitmq-url",
                        f"amqps://w:pw@{at}", *ca, "--rabbitmq-queue", "by-password", "--model",
                        bench.model)
        assert f"{at} answers over TLS" in run.stdout, run.stdout
    print("ok")


if __name__ == "__main__":
    main()
