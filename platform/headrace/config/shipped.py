"""Find the files that Headrace brings along: its dbt project, ``dagster.yaml`` and ``workspace.yaml``.

In a checkout they lie at its top level. In a wheel they lie inside the package, where ``pyproject.toml``
(``force-include``) puts them.
"""

from __future__ import annotations

from pathlib import Path

from headrace.core.errors import Fatal

_PACKAGE = Path(__file__).resolve().parents[1]
#: Folder of the package that holds them in an installation.
_INSIDE = _PACKAGE / "shipped"
#: Runs at a time that ``dagster.yaml`` allows, for those who use it as it is.
_RUNS = 40
#: What there is, as it is called in a checkout.
DBT, DAGSTER, WORKSPACE = "dbt_project", "dagster_home/dagster.yaml", "workspace.yaml"


def checkout() -> Path | None:
    """Return the root of the checkout that this code runs from; None in an installation."""
    root = _PACKAGE.parents[1]
    return root if _PACKAGE.parent.name == "platform" and not _INSIDE.is_dir() else None


def shipped(name: str) -> Path:
    """Return the path of a file or folder that Headrace brings along; nothing may be written there.

    Args:
        name: ``DBT``, ``DAGSTER`` or ``WORKSPACE``.

    Raises:
        Fatal: It is missing.
    """
    path = (checkout() or _INSIDE) / name
    if not path.exists():
        raise Fatal(f"{path} is missing: the installation of Headrace is damaged; install it again")
    return path


def prepare_dagster(home: Path, max_concurrent_runs: int = _RUNS) -> None:
    """Make a folder a ``DAGSTER_HOME``: with Headrace's ``dagster.yaml``.

    Args:
        home: The folder.
        max_concurrent_runs: Written in the place of the number that is in the file.
    """
    text = shipped(DAGSTER).read_text()
    line = f"max_concurrent_runs: {_RUNS}"
    assert text.count(line) == 1, f"dagster.yaml has no {line}"
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text(text.replace(line, f"max_concurrent_runs: {max_concurrent_runs}"))
