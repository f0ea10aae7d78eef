#!/usr/bin/env python3
"""scripts/kafka-local takes no jar that is not the one it names. Nothing is fetched here."""
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"
# Stands in for mvn: puts files where it is told to.
MVN = """\
#!/bin/sh
for word; do case $word in -DoutputDirectory=*) out=${word#*=};; esac; done
mkdir -p "$out"
while read -r sum name; do echo damaged >"$out/$name"; done <SUMS
"""


class Install(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="embedmill-test-")
        self.addCleanup(self.folder.cleanup)
        self.cache = Path(self.folder.name) / "cache"

    def install(self, path):
        env = {**os.environ, "XDG_CACHE_HOME": str(self.cache), "PATH": path}
        return subprocess.run([SCRIPTS / "kafka-local", "install"], env=env, text=True,
                              capture_output=True, check=False, timeout=60)

    def test_damaged(self):
        mvn = Path(self.folder.name) / "mvn"
        mvn.write_text(MVN.replace("SUMS", str(SCRIPTS / "kafka-3.9.2.sha256")), encoding="utf-8")
        mvn.chmod(0o755)
        run = self.install(f"{self.folder.name}:{os.environ['PATH']}")
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("sha256sum failed", run.stderr)
        self.assertFalse((self.cache / "embedmill" / "kafka-3.9.2").exists())

    def test_no_mvn(self):
        run = self.install(self.folder.name)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("scripts/install-packages kafka", run.stderr)


if __name__ == "__main__":
    unittest.main()
