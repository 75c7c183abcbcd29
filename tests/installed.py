"""Headrace as people have it: a wheel, in an environment without a checkout on its path.

The wheel is built and installed for real. The packages that it needs are those of the lock file, which lie in the
environment of the tests: installing them anew takes minutes and shows nothing of Headrace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: Tools of other packages that commands of Headrace start, or that people use beside it.
TOOLS = ("headrace", "dbt", "dagster", "dagster-webserver", "dagster-daemon", "dg", "pytest")


def uv() -> str:
    """The uv that ``make`` uses."""
    found = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
    assert Path(found).exists(), "no uv: run 'make install'"
    return found


@dataclass(frozen=True)
class Installation:
    """An environment with an installed wheel.

    Attributes:
        folder: Of the environment.
        wheel: The wheel.
    """

    folder: Path
    wheel: Path

    @property
    def package(self) -> Path:
        """Where the installed package lies."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages" / "headrace"

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """A clean environment for commands: nothing of the tests', and tools of this installation first."""
        ours = ("HEADRACE_", "DAGSTER_", "DBT_", "AWS_", "PYTHON", "VIRTUAL_ENV")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        path = f"{self.folder / 'bin'}{os.pathsep}{clean.get('PATH', '')}"
        return {**clean, "PATH": path, "COLUMNS": "200", **(more or {})}

    def run(
        self,
        *command: str,
        cwd: Path,
        check: bool = True,
        timeout: float = 300,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a tool of the environment; ``env`` adds to its environment."""
        done = subprocess.run(
            [str(self.folder / "bin" / command[0]), *command[1:]],
            cwd=cwd, env=self.environment(env), capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    def python(self, code: str, cwd: Path, env: Mapping[str, str] | None = None) -> str:
        """Run Python code there; return what it prints."""
        return self.run("python", "-c", code, cwd=cwd, env=env).stdout


def install(folder: Path) -> Installation:
    """Build the wheel, and install it into a new environment."""
    built = subprocess.run(
        [uv(), "build", "--quiet", "--wheel", "--out-dir", str(folder / "dist"), str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = (folder / "dist").glob("headrace-*.whl")
    made = Installation(folder / "env", wheel)
    _run(sys.executable, "-m", "venv", "--without-pip", str(made.folder))
    python = str(made.folder / "bin" / "python")
    _run(uv(), "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python, str(wheel))
    # no entry of a .pth that a .pth brings in counts, so the checkout, which one there names, stays out
    (made.package.parent / "locked.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for tool in entry_points(group="console_scripts"):
        if tool.name not in TOOLS:
            continue
        module, _, function = tool.value.partition(":")
        script = made.folder / "bin" / tool.name
        script.write_text(
            f"#!{python}\nimport sys\nfrom {module} import {function} as main\nsys.exit(main())\n"
        )
        script.chmod(0o755)
    return made


def _run(*command: str) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def files_below(folder: Path) -> set[Path]:
    """Files of a folder, without the bytecode that Python keeps beside its modules."""
    return {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
