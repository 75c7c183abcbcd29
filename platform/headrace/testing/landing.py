"""Land files on memory adapters."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from headrace.config.settings import Settings, load_settings
from headrace.core.errors import BadData, Fatal
from headrace.flow.commit import StreamLake
from headrace.flow.ingest import ingest
from headrace.flow.reads import Pace
from headrace.formats import FileReader
from headrace.lake.memory import MemoryLakeTable
from headrace.models.sources import own_streams
from headrace.pipelines import Discovered, Files, Pipeline, discover_for
from headrace.sources.files.archive import Archive
from headrace.sources.files.source import FilesSource
from headrace.streams.adapters import limits_of

_FOLDER = "sample"


@dataclass(frozen=True)
class Landed:
    """What became of some files.

    Attributes:
        stream: Name of the stream.
        lake: Its tables in memory.
        good: Rows that landed: the contract's columns, the partition's, and the origin's, which begin with ``_``.
        rejected: Records that were refused: payload, reasons, origin.
    """

    stream: str
    lake: StreamLake[MemoryLakeTable]
    good: pl.DataFrame
    rejected: pl.DataFrame

    @property
    def reasons(self) -> dict[str, int]:
        """Refused records by reason, such as ``amount: greater_than_or_equal_to(0)``, the most frequent first."""
        reason = pl.col("reasons").struct
        named = pl.concat_str(
            pl.when(reason.field("column") != "").then(reason.field("column") + ": ").otherwise(pl.lit("")),
            reason.field("check"),
        )
        found = self.rejected.select("reasons").explode("reasons").select(reason=named)
        counted = found.group_by("reason").len().sort(["len", "reason"], descending=[True, False])
        return dict(counted.iter_rows())


def streams() -> list[str]:
    """List the streams of the project, without Headrace's own."""
    return list(own_streams(_discovered(load_settings(with_stack=False))))


def broken() -> dict[str, str]:
    """Return why pipeline files do not load, by file; empty if all do."""
    return _discovered(load_settings(with_stack=False)).broken


def sample(stream: str) -> list[Path]:
    """List the files in the folder ``data/<stream>`` of the project."""
    settings = load_settings(with_stack=False)
    samples = settings.project.samples if settings.project else settings.project_dir / "data"
    return files_below(samples / stream)


def files_below(folder: Path) -> list[Path]:
    """List the files of a folder of the archive with its sub-folders, in order of their paths."""
    archive = Archive(str(folder.parent))
    return [folder.parent / found.path for found in archive.files(folder.name)]


def land(stream: str, *files: Path | str) -> Landed:
    """Check the records of files against the stream's contract, and land them in memory.

    Files are read, decompressed, shaped, checked and committed as the platform does it with an archive; files with
    the same content land once.

    Args:
        stream: Name of the stream.
        files: Files, relative to the project's root; default: its sample.

    Raises:
        Fatal: There is no such stream, or no file.
        BadData: A file cannot be read at all.
    """
    settings = load_settings(with_stack=False)
    pipeline = pipeline_of(stream, settings)
    chosen = [settings.project_dir / file for file in files] or sample(stream)
    if not chosen:
        raise Fatal(f"data/{stream} holds no file: put a sample there, or name the files to land")
    contract = pipeline.contract
    lake = StreamLake(MemoryLakeTable(contract.table), MemoryLakeTable(contract.rejected_table))
    refused: list[str] = []
    with TemporaryDirectory() as folder:
        source = _archived(chosen, pipeline, Path(folder))
        for step in ingest(source, contract, lake, limits_of(pipeline, settings), Pace(idle_seconds=0.0)):
            refused += step.refused
        source.close()
    if refused:
        raise BadData("; ".join(refused))
    return Landed(stream, lake, lake.good.rows(), lake.rejected.rows())


def pipeline_of(stream: str, settings: Settings) -> Pipeline:
    """Return a stream's declaration.

    Raises:
        Fatal: There is none, or its file does not load.
    """
    found = _discovered(settings)
    if stream not in found.pipelines:
        wrong = "".join(f"; {file} does not load: {why}" for file, why in found.broken.items())
        raise Fatal(
            f"there is no stream {stream!r}; there are {', '.join(found.pipelines) or 'none yet'}{wrong}"
        )
    return found.pipelines[stream]


def _discovered(settings: Settings) -> Discovered:
    return discover_for(settings)


def _archived(files: list[Path], pipeline: Pipeline, folder: Path) -> FilesSource:
    """Put files into an archive of their own, in their order."""
    (folder / _FOLDER).mkdir()
    for number, file in enumerate(files):
        if not file.is_file():
            raise Fatal(f"there is no file {file}")
        shutil.copyfile(file, folder / _FOLDER / f"{number:05} {file.name}")
    declared = [spec.format for spec in pipeline.sources if isinstance(spec, Files)]
    reader = FileReader(pipeline.contract, declared[0] if declared else None)
    return FilesSource(_FOLDER, Archive(str(folder)), reader, folder / "index.json", quiet_seconds=0.0)
