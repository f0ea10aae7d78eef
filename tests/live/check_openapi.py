#!/usr/bin/env python3
"""schemathesis against `embedmill serve`: what openapi.json says is what the server does.

Usage: check_openapi.py EMBEDMILL [SEED]

Requests are made from the description that the server gives, right ones and wrong ones, to a server
with a model of vectors, to one with a reranker, and to one with two models and a reranker, of which
they name one. Every answer must have a status, a type and a
body that are described; right requests are answered, wrong ones refused, none by 5xx. Needs the
Python package schemathesis beside the interpreter that runs this.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request

from serve_rig import RERANKER, SMALL, Server

TINY = os.path.join(os.path.dirname(RERANKER), "tiny-distilbert.gguf")

SEED = sys.argv[2] if len(sys.argv) > 2 else "1"
EXAMPLES = 60
CONFIG = """
[generation]
allow-x00 = false
[checks.negative_data_rejection]
expected-statuses = ["400", "404", "413", "422"]
"""
# What the description says in words, because a schema cannot: keys without U+0000, and numbers
# and depth within limits, in fields that the server ignores, too.
HOOKS = """
import schemathesis

def is_within(value, depth=1):
    if isinstance(value, dict):
        return depth <= 8 and all("\\0" not in key and is_within(member, depth + 1)
                                  for key, member in value.items())
    if isinstance(value, list):
        return depth <= 8 and all(is_within(member, depth + 1) for member in value)
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 64
    return True

@schemathesis.hook
def filter_body(context, body):
    return is_within(body)
"""


def description(address, folder, vocabulary, dim_max, names):
    """The server's own, with what depends on its models. names: those that requests may give."""
    with urllib.request.urlopen(f"http://{address}/openapi.json", timeout=60) as answer:
        assert answer.headers["Content-Type"] == "application/json"
        found = json.load(answer)
    schemas = found["components"]["schemas"]
    schemas["TokenId"]["maximum"] = vocabulary - 1
    dims = schemas["Dimensions"]["enum"]
    schemas["Dimensions"]["enum"] = [dim for dim in dims if not dim or dim <= dim_max]
    if names:
        schemas["ModelName"] = {"enum": [*names, None]}
    path = os.path.join(folder, "openapi.json")
    with open(path, "w", encoding="utf-8") as f:
        json.dump(found, f)
    return path


def check_routes(address):
    """Every route of the server is described, and no other."""
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "../../worker/serve/serve.c"), encoding="utf-8") as f:
        routes = re.findall(r'\{(MODEL_PATH )?"([^"]+)", "(GET|POST)", DIALECT', f.read())
    served = {(("/v1/models/" if model else "") + path, method.lower())
              for model, path, method in routes}
    with urllib.request.urlopen(f"http://{address}/openapi.json", timeout=60) as answer:
        described = {(path, method) for path, methods in json.load(answer)["paths"].items()
                     for method in methods}
    served.remove(("/", "get")) # the page, which is there when it is asked for
    assert served == described and len(served) > 10, served ^ described


def check(address, folder, *choice, vocabulary=30522, dim_max=384, names=()):
    config = os.path.join(folder, "schemathesis.toml")
    with open(config, "w", encoding="utf-8") as f:
        f.write(CONFIG)
    with open(os.path.join(folder, "hooks.py"), "w", encoding="utf-8") as f:
        f.write(HOOKS)
    command = [os.path.join(os.path.dirname(sys.executable), "schemathesis"),
               "--config-file", config, "run",
               description(address, folder, vocabulary, dim_max, names),
               "--url", f"http://{address}", "--checks", "all", "--mode", "all",
               "--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES),
               "--seed", SEED, "--workers", "1", "--generation-database",
               "none", "--request-timeout", "60", "--no-color", *choice]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": folder}
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        lines = [line[:600] for line in done.stdout.splitlines()]
        sys.exit("\n".join([f"check_openapi: seed {SEED}:", *lines[-300:]]))
    print(done.stdout.strip().splitlines()[-1], flush=True)


def check_several(folder):
    """Requests name one of several models, by its name or fingerprint, or none."""
    others = ("--model", f"small={SMALL}", "--model", f"ranks={RERANKER}")
    with Server(*others, model=f"tiny={TINY}") as server:
        with urllib.request.urlopen(f"http://{server.address}/v1/models", timeout=60) as answer:
            marks = {m["id"]: m["fingerprint"] for m in json.load(answer)["data"]}
        ranks = ("ranks", marks.pop("ranks"))
        check(server.address, folder, "--exclude-path-regex", "rerank$", vocabulary=66, dim_max=0,
              names=(*marks, *marks.values()))
        check(server.address, folder, "--include-path-regex", "rerank$", names=ranks)
        server.stop()


def main():
    if not os.path.exists(SMALL):
        print("skipped: no model; scripts/get-minilm fetches it")
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="embedmill-openapi-") as folder:
        with Server(model=SMALL) as server:
            check_routes(server.address)
            check(server.address, folder, "--exclude-path-regex", "rerank$")
            server.stop()
        with Server(model=RERANKER) as server:
            check(server.address, folder, "--include-path-regex", "rerank$|/tokenize$|/info$")
            server.stop()
        check_several(folder)


if __name__ == "__main__":
    main()
