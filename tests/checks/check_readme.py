#!/usr/bin/env python3
"""What README.md, CONTRIBUTING.md and docs/ name exists: options, variables, keys of the file, exit
codes, files, and the pages and headings that links lead to.

    check_readme.py EMBEDMILL
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# Of other programs: docker compose, ctest, nats, kafka-topics.sh, kafka-consumer-groups.sh,
# systemctl, numactl, llama.cpp's converter.
FOREIGN_FLAGS = {"--build", "--daemonize", "--scale", "--profile", "--test-dir",
                 "--output-on-failure", "--describe", "--group", "--now", "--membind",
                 "--cpunodebind", "--create", "--defaults", "--sentence-transformers-dense-modules"}
FOLDERS = "scripts|docs|tests|worker|connectors|inference"


class Truth:
    def __init__(self, binary):
        def ask(*words):
            return subprocess.run([binary, *words], check=True, capture_output=True,
                                  text=True).stdout

        commands = re.findall(r"^  (\w+) ", ask("--help"), re.M)
        self.help = "".join(ask(command, "--help") for command in commands)
        self.flags = set(re.findall(r"--(?:\[no-\])?([a-z][a-z0-9-]+)", self.help))
        # A line of its own, set or not: `redis.url: "..."`, `# redis.consumer: not set`.
        self.keys = set(re.findall(r"^(?:# )?([a-z_.]+): ", ask("run", "--print-config"), re.M))
        self.variables = {"EMBEDMILL_" + key.upper().replace(".", "_") for key in self.keys}
        self.groups = {key.split(".")[0] for key in self.keys if "." in key}
        around = [path for folder in ("scripts", "tests/live", "tests/checks")
                  for path in (ROOT / folder).iterdir() if path.is_file()
                  and path != Path(__file__).resolve()]
        around += [ROOT / "CMakeLists.txt", ROOT / "CONTRIBUTING.md"]
        self.around = "\n".join(path.read_text(errors="replace") for path in around)
        enum = (ROOT / "worker" / "commands" / "command.h").read_text()
        self.exit_codes = set(re.findall(r"COMMAND_\w+ = (\d+)", enum)) | {"129", "130", "143"}


def faults(text, truth):
    for flag in set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]", text)):
        if not (flag[2:] in truth.flags or flag in FOREIGN_FLAGS or
                re.search(re.escape(flag) + r"(?![\w-])", truth.around)):
            yield f"no flag {flag}"
    for name in set(re.findall(r"(?<!-D)EMBEDMILL_[A-Z_]+\b(?!<)", text)):
        # librdkafka's properties are its own business.
        is_property = name.startswith("EMBEDMILL_KAFKA_") and "kafka" in truth.groups
        is_file = name.endswith("_FILE") and name[:-5] in truth.variables # holds the value
        if not (name in truth.variables or is_file or name in truth.around or is_property):
            yield f"there is no variable {name}"
    groups = "|".join(sorted(truth.groups))
    for key in set(re.findall(rf"`((?:{groups})\.[a-z_]+)[`=]", text)):
        if key not in truth.keys:
            yield f"there is no option {key}"
    for path in set(re.findall(rf"(?<![\w/.-])((?:{FOLDERS})/[\w./*-]*[\w/*])", text)):
        if not re.search(r"NAME", path) and not any(ROOT.glob(path.rstrip("/"))):
            yield f"there is no file {path}"
    for code in re.findall(r"\bexit(?:s| code)? (\d+)", text):
        if code not in truth.exit_codes:
            yield f"there is no exit code {code}"


def anchors(text):
    """The headings of a page as links name them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    for title in re.findall(r"^#+ (.*)$", text, re.M):
        title = re.sub(r"[^\w\- ]", "", title.replace("`", "").lower())
        yield title.replace(" ", "-")


def broken_links(page, text):
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            yield f"a link leads to {path}, which does not exist"
        elif anchor and anchor not in anchors(target.read_text()):
            yield f"a link leads to {link}, and there is no such heading"


def table_of_exit_codes(text):
    table = text.split("\n## Stopping, exit codes", 1)[1].split("\n## ", 1)[0]
    return {code for row in re.findall(r"^\| ([\d, ]+) \|", table, re.M)
            for code in re.findall(r"\d+", row)}


def self_test(truth):
    wrong = "`--xyzzy-plugh` EMBEDMILL_PLUGH_XYZZY `redis.xyzzy` scripts/xyzzy and exit 99"
    found = sorted(faults(wrong, truth))
    assert len(found) == 5, found
    right = "`--redis-url` `--prompt` EMBEDMILL_DIM `redis.body` scripts/get-model and exits 65"
    assert not list(faults(right, truth)), list(faults(right, truth))
    page = ROOT / "docs" / "README.md"
    assert len(list(broken_links(page, "[a](xyzzy.md) [b](http.md#xyzzy)"))) == 2
    assert not list(broken_links(page, "[a](../README.md#limits) [b](https://example.org/x)"))


def main():
    truth = Truth(sys.argv[1])
    self_test(truth)
    found = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]:
        text = page.read_text()
        found += [f"{page.relative_to(ROOT)}: {fault}"
                  for fault in [*faults(text, truth), *broken_links(page, text)]]
    listed = table_of_exit_codes((ROOT / "docs" / "operations.md").read_text())
    if listed != truth.exit_codes:
        found.append("docs/operations.md and worker/commands/command.h differ in exit codes "
                     f"{sorted(listed ^ truth.exit_codes)}")
    for code in truth.exit_codes:
        if not re.search(rf"\b{code}\b", truth.help.replace("\n", " ")):
            found.append(f"--help does not name exit code {code}")
    print("\n".join(found))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
