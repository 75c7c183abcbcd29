"""Import the modules of a person's folders, always as their files are now.

A pipeline file may import the modules beside it and, in a project, everything at its root: ``contracts/clicks.py``
is ``contracts.clicks``. Installed packages come first, as on any ``sys.path``; only a project's ``contracts`` and
``pipelines`` are never taken for installed ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import invalidate_caches
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import NoReturn

#: The file at the root of a project.
PROJECT_FILE = "headrace.toml"
#: Folders of a project whose names belong to it.
_OWN = ("contracts", "pipelines")
#: Folders of a project whose modules no pipeline imports.
_NOT_IMPORTED = ("tests", "dbt", ".venv")
#: Names, times and sizes of files.
Stamps = tuple[tuple[str, int, int], ...]
#: Names of modules that were imported from people's folders.
_imported: set[str] = set()


def root_of(folder: Path) -> Path | None:
    """Return the project that holds a folder of pipelines; None for a folder that is in none."""
    return folder.parent if (folder.parent / PROJECT_FILE).is_file() else None


def module_files(folder: Path) -> list[Path]:
    """List the files that may hold the pipelines of a folder or what they import, in a fixed order."""
    found = [*folder.glob("*.py"), *folder.glob("*/*.py")]
    root = root_of(folder)
    if root is not None:
        found += [*root.glob("*.py"), *root.glob("*/*.py"), *root.glob("contracts/**/*.py")]
        found = [one for one in found if one.relative_to(root).parts[0] not in _NOT_IMPORTED]
    return sorted({*found})


def written(folders: Sequence[Path]) -> Stamps:
    """Return a value that changes whenever a file does that may hold the pipelines of these folders."""
    return stamps(path for folder in folders for path in module_files(folder))


def stamps(files: Iterable[Path]) -> Stamps:
    """Return a value that changes whenever one of these files does."""
    found = []
    for path in files:
        try:
            state = path.stat()
        except OSError:  # removed, or a dangling link
            found.append((str(path), 0, 0))
        else:
            found.append((str(path), state.st_mtime_ns, state.st_size))
    return tuple(found)


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Make the modules of a folder, and of the project around it, importable meanwhile.

    They stay known afterwards, because annotations that are text are resolved later; ``forget`` ends that.
    """
    root = root_of(folder)
    folders = [str(one) for one in (folder, root) if one is not None]
    own = [name for name in _OWN if root is not None and (root / name).is_dir()]
    first, last = _Finder([str(root or folder)], own), _Finder(folders, None)
    aside = _set_aside(own)
    finders, path = [*sys.meta_path], [*sys.path]
    invalidate_caches()
    sys.meta_path[:] = [first, *finders, last]
    try:
        yield
    finally:
        sys.meta_path[:] = [one for one in sys.meta_path if one not in (first, last)] or finders
        if not {*path} <= {*sys.path}:  # the file removed entries
            sys.path[:] = path
        sys.modules.update(aside)
        _imported.difference_update(aside)


def forget() -> None:
    """Forget what was imported from people's folders, so that it is read again."""
    for name in _imported:
        sys.modules.pop(name, None)
    _imported.clear()


def _set_aside(names: Sequence[str]) -> dict[str, ModuleType]:
    """Take installed packages of these names out of what is known, until the load is over."""
    taken = [one for one in sys.modules if one.partition(".")[0] in names and one not in _imported]
    return {name: sys.modules.pop(name) for name in taken}


class FromText(SourceFileLoader):
    """Compile a module from its text, and keep no bytecode.

    Bytecode is told from its source by size and whole seconds: two edits within one would be taken for the same.
    """

    def path_stats(self, path: object) -> NoReturn:
        """Know no time of the file, without which bytecode is neither read nor written."""
        raise OSError(f"{path} is always compiled")


class _Finder:
    """Find modules in folders of a person.

    Args:
        folders: Where top-level modules are looked for, in this order.
        names: Top-level names to look for; None for all. A finder of certain names also finds what is in the
            packages of these folders.
    """

    def __init__(self, folders: Sequence[str], names: Sequence[str] | None) -> None:
        self.names = names
        self._folders = folders

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module; None leaves it to others."""
        if path is None:
            folders = self._folders if self.names is None or name in self.names else ()
        else:
            folders = [one for one in path if any(Path(one).is_relative_to(own) for own in self._folders)]
        for folder in folders:
            spec = FileFinder(folder, (FromText, SOURCE_SUFFIXES)).find_spec(name)
            if spec is not None:
                _imported.add(name)
                return spec
        return None
