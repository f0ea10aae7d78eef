#!/usr/bin/env python3
"""What a new machine meets first: CMakeLists.txt and scripts/install-packages on systems unlike
this one. Other systems are stood in for by .pc files and by an apt of a few lines; nothing is
installed. scripts/test-systems does the same on real ones."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ("bash", "awk", "sed", "dpkg", "env", "sort", "tr", "cat", "dirname", "mktemp",
         "rm")


class Folder(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="embedmill-test-")
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)


class Configure(Folder):
    """CMakeLists.txt, with the .pc files of other releases."""

    def pc_file(self, module, **changes):
        """The system's own, with some of its lines changed."""
        folder = subprocess.run(["pkg-config", "--variable=pcfiledir", module], text=True,
                                capture_output=True, check=True).stdout.strip()
        lines = (Path(folder) / f"{module}.pc").read_text(encoding="utf-8").splitlines()
        for name, value in changes.items():
            found = [i for i, line in enumerate(lines) if line.startswith((f"{name}=", f"{name}:"))]
            self.assertTrue(found, f"{module}.pc has no {name}")
            lines[found[0]] = f"{lines[found[0]][:len(name) + 1]}{value}"
        (self.folder / f"{module}.pc").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def configure(self):
        env = {**os.environ, "PKG_CONFIG_PATH": str(self.folder)}
        return subprocess.run(["cmake", "-S", ROOT, "-B", self.folder / "build", "-G", "Ninja"],
                              env=env, text=True, capture_output=True, check=False, timeout=200)

    def test_relative_include_folder(self):
        modules = [name for name in ("msgpack", "msgpack-c") if subprocess.run(
            ["pkg-config", "--exists", name], check=False).returncode == 0]
        self.assertTrue(modules)
        for module in modules:
            self.pc_file(module, includedir="include")
        run = self.configure()
        self.assertEqual(run.returncode, 0, run.stderr)

    def test_warnings_are_errors_in_ci_only(self):
        run = self.configure()
        self.assertEqual(run.returncode, 0, run.stderr)
        commands = json.loads((self.folder / "build/compile_commands.json").read_text())
        self.assertTrue(commands)
        for command in commands:
            self.assertIn("-Wall", command["command"])
            self.assertNotIn("-Werror", command["command"])
        self.assertIn("scripts/build --werror\n", (ROOT / "scripts/test").read_text())

    def test_old_librdkafka(self):
        self.pc_file("rdkafka", Version=" 1.8.0")
        run = self.configure()
        self.assertNotEqual(run.returncode, 0)
        said = " ".join(run.stderr.split())
        self.assertIn("librdkafka 2.0.0 or newer is needed, and this system has 1.8.0", said)
        self.assertIn("Ubuntu 24.04", said)


class Packages(Folder):
    """scripts/install-packages, on a release that has the packages of `candidates` and has
    installed none."""

    def setUp(self):
        super().setUp()
        for tool in TOOLS:
            os.symlink(shutil.which(tool), self.folder / tool)
        self.command("dpkg-query", "exit 1")
        self.command("apt-get", f'echo "$*" >>{self.folder}/apt.log')

    def command(self, name, text):
        path = self.folder / name
        path.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        path.chmod(0o755)

    def release(self, candidates, user=0):
        lines = "".join(f"{name}) echo 'Candidate: {version}' ;;\n"
                        for name, version in candidates.items())
        self.command("apt-cache", f"case $2 in\n{lines}*) echo 'Candidate: (none)' ;;\nesac")
        self.command("id", f"echo {user}")

    def install(self, *groups):
        run = subprocess.run([ROOT / "scripts/install-packages", *groups], text=True, check=False,
                             env={"PATH": str(self.folder)}, capture_output=True, timeout=60)
        log = self.folder / "apt.log"
        return run, log.read_text(encoding="utf-8").splitlines() if log.exists() else []

    def all_of(self, group, **versions):
        """Every package of a group, as scripts/install-packages itself names it."""
        text = (ROOT / "scripts/install-packages").read_text(encoding="utf-8")
        block = text.split(f"    {group}) echo ", 1)[1].split(";;", 1)[0]
        names = block.replace('"', " ").replace("\\", " ").replace("|", " ").split()
        return {name: versions.get(name.replace("-", "_"), "9.0-1") for name in names}

    def test_all_at_once(self):
        self.release({"libc6": "2", **self.all_of("build", librdkafka_dev="2.3.0-1build2")})
        run, log = self.install("build")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(len(log), 2, log)
        self.assertEqual(log[0], "update -qq")
        self.assertIn(" libmsgpack-dev ", log[1])
        self.assertNotIn("|", log[1])

    def test_apt_is_heard_when_it_fails(self):
        self.release({"libc6": "2", **self.all_of("build")})
        for code in 0, 100:
            with self.subTest(code=code):
                self.command("apt-get", f'case "$*" in update*) exit 0 ;; esac\n'
                             f'echo "Unpacking a lot"; echo "E: no room" >&2; exit {code}')
                run, _ = self.install("build")
                self.assertEqual(run.returncode != 0, code != 0)
                for line in "Unpacking a lot", "E: no room":
                    self.assertEqual(line in run.stdout + run.stderr, code != 0, run.stderr)

    def test_old_librdkafka_is_refused_before_anything_is_installed(self):
        for version in ("1.8.0-1build1", "1.6.0-1"):
            with self.subTest(version=version):
                self.release({"libc6": "2", **self.all_of("build", librdkafka_dev=version)})
                run, log = self.install("build")
                self.assertEqual(run.returncode, 1)
                self.assertIn("librdkafka 2.0.0 or newer is needed", run.stderr)
                self.assertIn(f"has {version.split('-')[0]};", run.stderr)
                self.assertIn("nothing was installed", run.stderr)
                self.assertEqual(len(run.stderr.strip().splitlines()), 1, run.stderr)
                self.assertFalse([line for line in log if "install" in line], log)

    def test_librdkafka_of_a_users_own(self):
        self.command("pkg-config", '[ "$*" = "--atleast-version=2.0.0 rdkafka" ]')
        self.release({"libc6": "2", **self.all_of("build", librdkafka_dev="1.8.0-1build1")})
        run, log = self.install("build")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertNotIn("librdkafka-dev", log[-1])

    def test_old_librdkafka_installed(self):
        self.command("dpkg-query", 'case "$4" in librdkafka-dev) echo installed 1.8.0-1 ;;\n'
                     "*) echo installed 9.0 ;; esac")
        self.release({"libc6": "2", "librdkafka-dev": "1.8.0-1"})
        run, log = self.install("build")
        self.assertEqual(run.returncode, 1)
        self.assertIn("librdkafka 2.0.0 or newer is needed", run.stderr)

    def test_renamed_package(self):
        packages = self.all_of("build")
        del packages["libmsgpack-dev"]
        self.release({"libc6": "2", **packages})
        run, log = self.install("build")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn(" libmsgpack-c-dev ", log[-1])

    def test_without_root(self):
        """What it prints can be typed as it is."""
        for candidates in ({}, {"libc6": "2", **self.all_of("build")}):
            with self.subTest(n=len(candidates)):
                self.release(candidates, user=1000)
                run, log = self.install("build")
                self.assertEqual(run.returncode, 1)
                self.assertFalse(log)
                line = run.stderr.strip()
                self.assertIn("as root, apt-get install cmake ninja-build ", line)
                self.assertIn(" libmsgpack-dev ", line)
                self.assertFalse(set("|;&<>") & set(line.split("apt-get install")[1]), line)


if __name__ == "__main__":
    unittest.main()
