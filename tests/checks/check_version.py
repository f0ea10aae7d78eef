#!/usr/bin/env python3
"""Every place that names the version of embedmill names the same, and a release has a date.

    check_version.py [EMBEDMILL]

The version is that of project() in CMakeLists.txt; with EMBEDMILL, the program is asked, too.
"""

import re
import subprocess
import sys
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# Each of these patterns is found in the file, and finds the version each time.
PLACES = {
    "docs/operations.md": r"embedmill_([\d.]+)_amd64\.deb",
    "scripts/deploy/kubernetes/embedmill.yaml": r"embedmill:(\d[\w.]*)",
    "scripts/client-python/pyproject.toml": r'(?m)^version = "([\d.]+)"',
    "scripts/deploy/kubernetes/serve.yaml": r"embedmill:(\d[\w.]*)",
}


def faults(read, printed=None):
    version = re.search(r"^project\(embedmill VERSION (\S+)", read("CMakeLists.txt"), re.M)[1]
    for path, pattern in PLACES.items():
        found = re.findall(pattern, read(path))
        if not found or set(found) != {version}:
            yield f"{path} names {found}, and CMakeLists.txt {version}"
    heading = re.search(r"^## (\d\S*)(?: - (\S+))?$", read("CHANGELOG.md"), re.M)
    entry = read("scripts/deploy/debian/changelog")
    debian = re.match(r"embedmill \((\S+)\) stable;", entry)
    date = parsedate_to_datetime(re.search(r"^ -- .*>  (.*)$", entry, re.M)[1]).date()
    if heading[1] != version or debian[1] != version:
        yield f"the newest of CHANGELOG.md is {heading[1]}, of Debian's changelog {debian[1]}, " \
              f"and CMakeLists.txt has {version}"
    if not heading[2]:
        yield f"CHANGELOG.md gives {version} no date: '## {version} - YYYY-MM-DD'"
    elif datetime.strptime(heading[2], "%Y-%m-%d").date() != date:
        yield f"{version} is of {heading[2]} in CHANGELOG.md and of {date} in Debian's changelog"
    if printed is not None and printed.split()[:2] != ["embedmill", version]:
        yield f"the program says {printed.splitlines()[0]!r}, and CMakeLists.txt {version}"


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def self_test():
    """A place that was forgotten is found, whichever it is."""
    version = re.search(r"^project\(embedmill VERSION (\S+)", read("CMakeLists.txt"), re.M)[1]
    for forgotten in [*PLACES, "CHANGELOG.md", "scripts/deploy/debian/changelog"]:
        def old(path, forgotten=forgotten):
            return read(path).replace(version, "0.0.7") if path == forgotten else read(path)
        assert list(faults(old)), forgotten
    assert list(faults(read, "embedmill 0.0.7\n"))
    dateless = re.sub(r"^(## \d\S*) - \S+$", r"\1", read("CHANGELOG.md"), count=1, flags=re.M)
    assert list(faults(lambda path: dateless if path == "CHANGELOG.md" else read(path)))


def main():
    self_test()
    printed = subprocess.run([sys.argv[1], "version"], check=True, capture_output=True,
                             text=True).stdout if len(sys.argv) > 1 else None
    found = list(faults(read, printed))
    print("\n".join(found), end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
