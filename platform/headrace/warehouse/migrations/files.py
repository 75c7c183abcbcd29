"""Read the migrations that this version of Headrace knows, and those of a project: numbered SQL files.

A file ``NNNN_title.sql`` holds one or more statements. Every statement must be safe to repeat (``IF NOT
EXISTS`` and the like): ClickHouse has no transactions around DDL, so a migration that failed half way starts
over.

Migrations of a project have numbers of their own. In the history they are counted from ``PROJECT`` on, so that they
come after Headrace's, whatever Headrace adds later. Those that are generated from contracts are no files: they are
counted from ``GENERATED`` on, and the history has their text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.core.batch import Table
from headrace.core.errors import Fatal
from headrace.warehouse import ddl
from headrace.warehouse.cluster import ONE_SERVER, Placement
from headrace.warehouse.migrations.script import statements

FOLDER = Path(__file__).parent
#: What is added to the number of a project's migration.
PROJECT = 1_000_000
#: What is added to the number of a migration that is generated from a contract.
GENERATED = 2_000_000
_NAME = re.compile(r"(?P<version>[0-9]{4})_[a-z0-9]+(?:_[a-z0-9]+)*\.sql")
_GENERATED_NAME = re.compile(r"generated/[0-9]{4,}_(?P<table>.+)\.v(?P<version>[0-9]+)\.sql")
_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}")


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration, which is a file or generated.

    Attributes:
        version: Number of the migration, from ``PROJECT`` on for one of a project, from ``GENERATED`` on for a
            generated one.
        name: Name of the file; ``migrations/`` before that of a project's; see ``generated_name``.
        text: Content of the file, with Unix line ends.
    """

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text with its placeholders, so that it is the same in every database."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def statements(self, database: str, placement: Placement = ONE_SERVER) -> list[str]:
        """Return the statements for a raw database; its quoted name replaces ``{{raw}}``.

        Raises:
            Fatal: The file has another placeholder, a literal or comment without an end, or a statement that
                has no equivalent on a cluster.
        """
        unknown = set(_PLACEHOLDER.findall(self.text)) - {"raw"}
        if unknown:
            raise Fatal(f"migration {self.name}: {{{{{min(unknown)}}}}} is unknown; there is {{{{raw}}}}")
        try:
            named = [s.replace("{{raw}}", ddl.quoted(database)) for s in statements(self.text)]
            return [placed for one in named for placed in placement.statements(one)]
        except Fatal as error:
            raise Fatal(f"migration {self.name}: {error}") from None


def generated_name(number: int, table: str, version: int) -> str:
    """Return the name in the history of a migration that is generated.

    Args:
        number: Its number, from ``GENERATED`` on.
        table: The raw table that it changes.
        version: Version of the contract to which it brings the table.
    """
    return f"generated/{number - GENERATED:04}_{table}.v{version}.sql"


def generated_for(name: str) -> tuple[str, int]:
    """Return raw table and version of the contract of a generated migration, from its name."""
    found = _GENERATED_NAME.fullmatch(name)
    return (found["table"], int(found["version"])) if found else ("", 0)


def read_migrations(folder: Path = FOLDER) -> list[Migration]:
    """Read the migrations of a folder in the order of their numbers.

    Raises:
        Fatal: A name is not ``NNNN_title.sql``, or two files have the same number.
    """
    found = [_read(path) for path in sorted(folder.glob("*.sql"))]
    _refuse_twins(found)
    return found


@dataclass(frozen=True, slots=True)
class ProjectMigrations:
    """The migrations of a project.

    Attributes:
        folder: Folder of the files; it may not exist.
        tables: Returns the raw tables of all streams. Before the first migration they are made from their
            contracts, as the migrations expect.
    """

    folder: Path
    tables: Callable[[], Sequence[Table]]

    def read(self) -> list[Migration]:
        """Read the files in the order of their numbers.

        Raises:
            Fatal: As for ``read_migrations``.
        """
        own = read_migrations(self.folder)
        return [Migration(PROJECT + one.version, f"migrations/{one.name}", one.text) for one in own]


def _read(path: Path) -> Migration:
    named = _NAME.fullmatch(path.name)
    if named is None:
        raise Fatal(f"migration {path}: the name must be four digits, _, a lower-case title and .sql")
    text = path.read_text(encoding="utf-8")  # universal newlines: a checkout with CRLF has the same checksum
    return Migration(int(named["version"]), path.name, text.strip() + "\n")


def _refuse_twins(found: Iterable[Migration]) -> None:
    names: dict[int, str] = {}
    for one in found:
        if one.version in names:
            raise Fatal(f"migrations {names[one.version]} and {one.name} have the same number; rename one")
        names[one.version] = one.name
