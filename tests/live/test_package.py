#!/usr/bin/env python3
"""What is installed: `cmake --install`, the Debian package, the systemd unit, Kubernetes manifests.

The package is built by cpack, installed by dpkg into a root of its own, and run from there. Needs
root only for dpkg; without it the package is unpacked instead.

Usage: test_package.py BUILD-FOLDER
"""
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from check_embed import find_model

DEPLOY = Path(__file__).parent.parent.parent / "scripts" / "deploy"


def run(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **more)
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}"
    return done.stdout


def check_installed(prefix):
    """The program runs from where it was put, and what the documentation names is there."""
    assert run(prefix / "bin" / "embedmill", "version").startswith("embedmill ")
    run(prefix / "bin" / "embedmill", "check", "--model", find_model())
    for name in ("lib/systemd/system/embedmill.service", "share/doc/embedmill/README.md",
                 "share/doc/embedmill/copyright",
                 "share/doc/embedmill/changelog.gz", "share/doc/embedmill/CHANGELOG.md.gz",
                 "share/doc/embedmill/monitoring/alerts.yml",
                 "share/doc/embedmill/kubernetes/embedmill.yaml",
                 "share/doc/embedmill/kubernetes/serve.yaml", "share/man/man1/embedmill.1.gz",
                 "share/bash-completion/completions/embedmill",
                 "share/zsh/vendor-completions/_embedmill"):
        assert (prefix / name).is_file(), name
    run(prefix / "share" / "embedmill" / "get-model", find_model())
    parts = {path.name for path in (DEPLOY.parent / "convert_model").glob("*.py")}
    installed = prefix / "share" / "embedmill" / "convert_model"
    assert {path.name for path in installed.iterdir()} == parts, "convert-model.py lacks its parts"


def check_hardened(binary):
    """What CMakeLists.txt asks for has reached the program."""
    kind = run("readelf", "--file-header", binary)
    dynamic = run("readelf", "--dynamic", "--wide", binary)
    segments = run("readelf", "--program-headers", "--wide", binary)
    symbols = run("readelf", "--dyn-syms", "--wide", binary)
    assert "DYN (Position-Independent" in kind, kind
    assert re.search(r"FLAGS_1.*NOW.*PIE", dynamic), dynamic
    assert "GNU_RELRO" in segments, segments
    assert re.search(r"GNU_STACK.* RW ", segments), segments
    assert "__stack_chk_fail" in symbols, "no stack protector"
    assert re.search(r"__(snprintf|memcpy|fprintf)_chk", symbols), "no fortified calls"


def check_install(build, folder):
    run("cmake", "--install", build, "--prefix", folder / "prefix")
    check_installed(folder / "prefix")
    check_hardened(folder / "prefix" / "bin" / "embedmill")


def check_image(needs):
    """The worker's image has the libraries that the package asks for, and authorities for TLS."""
    if 'PRETTY_NAME="Debian GNU/Linux 12' not in Path("/etc/os-release").read_text("utf-8"):
        print("the image's packages are those of Debian 12, and not compared here")
        return
    text = (DEPLOY.parent / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    worker = text[text.index("AS worker"):]
    installed = re.search(r"--no-install-recommends ([^&]*)&&", worker)[1].split()
    wanted = {package.split()[0] for package in needs.split(",")} - {"libc6"} # in every image
    assert set(installed) == wanted | {"ca-certificates"}, (installed, wanted)


def check_deb(build, folder):
    run("cpack", "-G", "DEB", "-B", folder / "deb", "--config", build / "CPackConfig.cmake",
        cwd=build)
    package, = (folder / "deb").glob("*.deb")
    needs = run("dpkg-deb", "-f", package, "Depends")
    for library in ("libc6", "libuv1", "libhiredis", "libmicrohttpd",
                    "libyaml", "librdkafka", "liblmdb0"):
        assert library in needs, needs
    check_image(needs)
    listing = run("dpkg-deb", "-c", package)
    assert re.search(r"-rwxr-xr-x root/root .* \./usr/bin/embedmill\n", listing), listing
    assert " ./etc" not in listing and "/home/" not in listing
    root = folder / "root"
    if os.geteuid() == 0:
        (root / "var/lib/dpkg/info").mkdir(parents=True)
        (root / "var/lib/dpkg/updates").mkdir()
        (root / "var/lib/dpkg/status").touch()
        # Its libraries are those of this system, which that root does not have.
        run("dpkg", f"--root={root}", "--force-depends", "-i", package)
        assert "install ok installed" in run("dpkg-query", f"--admindir={root}/var/lib/dpkg", "-s",
                                             "embedmill")
    else:
        run("dpkg-deb", "-x", package, root)
    check_installed(root / "usr")


def check_unit(build, folder):
    """systemd takes it without a complaint and finds little to harden."""
    text = (DEPLOY / "systemd" / "embedmill.service").read_text(encoding="utf-8")
    unit = folder / "embedmill.service"
    unit.write_text(text.replace("=embedmill ", f"={build}/embedmill "), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True,
                          timeout=120, check=False)
    complaints = [line for line in done.stderr.splitlines() if "embedmill" in line]
    assert not complaints, complaints
    run("systemd-analyze", "security", "--offline=true", "--threshold=20", unit)


def check_kubernetes():
    """Names, labels and ports agree with each other and with the program."""
    found = {}
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for thing in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            found[thing["kind"], path.stem] = thing
    workers = found["StatefulSet", "embedmill"]["spec"]
    labels = workers["template"]["metadata"]["labels"]
    assert workers["selector"]["matchLabels"] == labels
    assert found["PodDisruptionBudget", "embedmill"]["spec"]["selector"]["matchLabels"] == labels
    assert found["Service", "embedmill"]["spec"]["selector"] == labels
    assert found["Service", "embedmill"]["metadata"]["name"] == workers["serviceName"]
    container, = workers["template"]["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"),
                        ("readinessProbe", "/readyz")):
        get = container[probe]["httpGet"]
        assert get["path"] == path and get["port"] in ports, probe
    drain = int(found["ConfigMap", "embedmill"]["data"]["EMBEDMILL_DRAIN_TIMEOUT"].rstrip("s"))
    assert drain < workers["template"]["spec"]["terminationGracePeriodSeconds"]
    server = found["Deployment", "serve"]["spec"]
    labels = server["template"]["metadata"]["labels"]
    container, = server["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    env = {one["name"]: one["value"] for one in container["env"]}
    assert server["selector"]["matchLabels"] == labels
    assert found["Service", "serve"]["spec"]["selector"] == labels
    assert found["Service", "serve"]["spec"]["ports"][0]["targetPort"] in ports
    assert found["PodDisruptionBudget", "serve"]["spec"]["selector"]["matchLabels"] == labels
    assert found["HorizontalPodAutoscaler", "serve"]["spec"]["scaleTargetRef"]["name"] == \
        found["Deployment", "serve"]["metadata"]["name"]
    assert env["EMBEDMILL_HTTP_LISTEN"] == f":{ports['http']}"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "http", probe
    stops = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert stops + int(env["EMBEDMILL_DRAIN_TIMEOUT"].rstrip("s")) < \
        server["template"]["spec"]["terminationGracePeriodSeconds"]
    for name in ("keda-redis", "keda-kafka", "keda-nats", "keda-rabbitmq"):
        scaled = found["ScaledObject", name]["spec"]
        assert scaled["scaleTargetRef"] == {"kind": "StatefulSet", "name": "embedmill"}
        trigger, = scaled["triggers"]
        assert all(isinstance(value, str) for value in trigger["metadata"].values())


def main():
    build = Path(sys.argv[1]).absolute()
    with tempfile.TemporaryDirectory(prefix="embedmill-package-") as folder:
        check_install(build, Path(folder))
        check_deb(build, Path(folder))
        check_unit(build, Path(folder))
    check_kubernetes()
    print("install, package, unit and manifests: ok")


if __name__ == "__main__":
    main()
