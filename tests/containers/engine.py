"""A Docker engine, its plugins, and the base image, wherever they come from.

Where Docker runs and a registry can be reached, that is all there is to it. Else, as root on Debian, the engine comes
from Debian's packages and listens on a socket of its own, compose and buildx are unpacked from Debian's next release,
and the base image is made of Debian's packages, with the certificates that this machine trusts. Nothing that runs
already is touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

BASE, RELEASE, MIRROR = "python:3.13-slim", "trixie", "http://deb.debian.org/debian"
_ENGINE = ("docker.io", "containerd", "runc", "iptables", "mmdebstrap", "debian-archive-keyring")
_PLUGINS = ("docker-compose", "docker-buildx")
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_START_SECONDS, _PULL_SECONDS = 60, 120
#: What the official image leaves away, too.
_WITHOUT = ("man", "doc", "locale", "info")
_INCLUDE = "python3,python3-venv,python3-pip,ca-certificates,passwd"
_BASE_FILE = """\
FROM headrace-debian
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
RUN ln -s python3 /usr/bin/python && rm -f /usr/lib/python3.*/EXTERNALLY-MANAGED
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_CERT=/etc/ssl/certs/ca-certificates.crt
"""


class Missing(Exception):
    """Why there is no engine here."""


def say(what: str) -> None:
    """Print a line with the time."""
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)


def run(command: list[str], env: Mapping[str, str] | None = None, **more: object) -> str:
    """Run a command and return what it prints.

    Raises:
        Missing: It fails; says its last words.
    """
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]
    if done.returncode:
        words = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise Missing(f"{' '.join(command[:4])} ended with {done.returncode}: {words}")
    return str(done.stdout)


@contextmanager
def engine(folder: Path) -> Iterator[dict[str, str]]:
    """Have an engine with compose and the base image; yields the environment for ``docker``.

    Args:
        folder: For what is fetched, and for the data of an engine that is started here. It stays for the next time.

    Raises:
        Missing: None can be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    env = {**os.environ}
    with _running(folder, env) as found:
        if not _works(["docker", "compose", "version"], found):
            found["DOCKER_CONFIG"] = str(_plugins(folder))
        _base(folder, found)
        yield found


def _works(command: list[str], env: Mapping[str, str]) -> bool:
    try:
        run(command, env)
    except (Missing, OSError):
        return False
    return True


@contextmanager
def _running(folder: Path, env: dict[str, str]) -> Iterator[dict[str, str]]:
    if _works(["docker", "info"], env):
        say("docker runs")
        yield env
        return
    if os.geteuid() or not shutil.which("apt-get"):
        raise Missing("Docker does not run, and only root on Debian can start one here: start Docker")
    if not shutil.which("dockerd"):
        say("installing Docker's engine from Debian's packages")
        run(["apt-get", "update", "--quiet"])
        run(["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *_ENGINE])
    socket = f"unix://{folder / 'docker.sock'}"
    own = {**env, "DOCKER_HOST": socket}
    with (folder / "dockerd.log").open("wb") as log:
        server = subprocess.Popen(
            [
                "dockerd",
                f"--data-root={folder / 'data'}",
                f"--exec-root={folder / 'exec'}",
                f"--pidfile={folder / 'pid'}",
                f"--host={socket}",
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _await(server, own, folder)
        yield own
    finally:
        server.terminate()
        server.wait(60)


def _await(server: subprocess.Popen[bytes], env: Mapping[str, str], folder: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while not _works(["docker", "info"], env):
        if server.poll() is not None or time.monotonic() > until:
            words = (folder / "dockerd.log").read_text().strip().splitlines()[-2:]
            raise Missing(f"Docker's engine does not start: {' | '.join(words)}")
        time.sleep(0.2)
    say("docker's engine has started")


def _plugins(folder: Path) -> Path:
    """Unpack compose and buildx, where they are missing; returns the folder that ``DOCKER_CONFIG`` names."""
    home = folder / "config"
    wanted = home / "cli-plugins"
    if not (wanted / "docker-buildx").is_file():
        say("fetching compose and buildx")
        work = folder / "apt"
        for one in ("lists/partial", "cache/archives/partial"):
            (work / one).mkdir(parents=True, exist_ok=True)
        (work / "sources.list").write_text(f"deb [signed-by={_KEYS}] {MIRROR} {RELEASE} main\n")
        options = [
            "-o", f"Dir::Etc::sourcelist={work / 'sources.list'}", "-o", "Dir::Etc::sourceparts=-",
            "-o", f"Dir::State::lists={work / 'lists'}", "-o", f"Dir::Cache={work / 'cache'}",
        ]  # fmt: skip
        run(["apt-get", *options, "update"])
        run(["apt-get", *options, "download", *_PLUGINS], cwd=work)
        wanted.mkdir(parents=True, exist_ok=True)
        for package in work.glob("*.deb"):
            run(["dpkg", "-x", str(package), str(work / "files")])
        for name in _PLUGINS:
            [program] = [p for p in (work / "files").rglob(name) if p.is_file() and os.access(p, os.X_OK)]
            shutil.copy(program, wanted / name)
    return home


def _base(folder: Path, env: Mapping[str, str]) -> None:
    """Have the base image: pulled, or made of Debian's packages."""
    if _works(["docker", "image", "inspect", BASE], env):
        return
    try:
        run(["docker", "pull", "--quiet", BASE], env, timeout=_PULL_SECONDS)
        return
    except (Missing, subprocess.TimeoutExpired):
        say(f"no registry to pull {BASE} from: making it of Debian's packages")
    system = folder / "base.tar"
    leave = [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in _WITHOUT]
    run(["mmdebstrap", "--variant=apt", f"--include={_INCLUDE}", *leave, RELEASE, str(system), MIRROR])
    run(["docker", "import", str(system), "headrace-debian"], env)
    system.unlink()
    context = folder / "base"
    context.mkdir(exist_ok=True)
    shutil.copy(_CERTIFICATES, context)
    (context / "Dockerfile").write_text(_BASE_FILE)
    run(["docker", "build", "--quiet", "--tag", BASE, str(context)], env)


if __name__ == "__main__":
    try:
        with engine(Path(sys.argv[1]).absolute()) as found:
            says = {name: found[name] for name in ("DOCKER_HOST", "DOCKER_CONFIG") if name in found}
            print(" ".join(f"{name}={value}" for name, value in says.items()) or "docker runs")
            sys.stdin.read()
    except Missing as why:
        sys.exit(f"engine: {why}")
