"""Infer a stream from a file or a topic, try what was inferred, and write its two files."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from shlex import quote

from headrace.config.settings import Settings
from headrace.contracts.inference import Inferred, Place, Sample
from headrace.contracts.inference import infer as learn
from headrace.contracts.inference.layout import Call
from headrace.contracts.inference.load import load_contract
from headrace.contracts.inference.names import identifier
from headrace.contracts.inference.source import pipeline_source
from headrace.contracts.verify import IDENTIFIER
from headrace.core.atomic import write_atomically
from headrace.core.errors import Fatal
from headrace.pipelines import Files, Kafka, Pipeline, discover_for
from headrace.pipelines.base import KafkaFormat
from headrace.streams import samples
from headrace.streams.adapters import limits_of
from headrace.streams.samples import NamedFile, NamedTopic
from headrace.streams.trial import Trial, try_batches

#: Longest name of a stream: its rejected table must be an identifier, too.
_LONGEST = 54
#: Names whose constant a contract imports already.
_TAKEN = frozenset({"string_map"})


@dataclass(frozen=True, slots=True)
class Target:
    """The files of a stream.

    Attributes:
        contract: File of the contract.
        pipeline: File of the pipeline.
        place: How they import each other.
    """

    contract: Path
    pipeline: Path
    place: Place


@dataclass(frozen=True, slots=True)
class Written:
    """What was inferred and written.

    Attributes:
        inferred: Columns and roles.
        sample: What they were learnt from.
        trial: What would become of the sample.
        files: The files that were written.
        next_steps: Commands to type next.
    """

    inferred: Inferred
    sample: Sample
    trial: Trial
    files: Sequence[Path]
    next_steps: Sequence[str]


def infer(
    what: str, settings: Settings, *, name: str | None, to: Path | None, rows: int, force: bool
) -> Written:
    """Learn a stream from a sample, try it on the sample, and write its contract and its pipeline.

    Args:
        what: A file, here or in the archive, or a topic.
        settings: Where everything is.
        name: Name of the stream; None makes one of the file's or the topic's.
        to: Folder for both files; None for that of the project, or of ``HEADRACE_PIPELINES``, or this one.
        rows: Most records to look at.
        force: Replace files that exist.

    Raises:
        BadData: The sample cannot be read, or has no records.
        Fatal: The name is no good, the files exist, or there is no such file or topic.
        Retriable: The broker does not answer.
    """
    found = samples.find(what, settings)
    stream = name or name_of(found)
    target = target_of(stream, to, settings)
    _require_free(stream, target, settings, named=name is not None, force=force)
    sample = samples.sample(found, rows, settings)
    inferred = learn(sample, stream, datetime.now(UTC))
    contract = inferred.contract(target.place)
    format: KafkaFormat = "confluent" if sample.framed else "json"
    sources, more = _sources(found, stream, format)
    pipeline = Pipeline(
        load_contract(contract, stream),
        (
            Kafka(found.name, format=format)
            if isinstance(found, NamedTopic)
            else Files(found.folder or stream),
        ),
        owner="team:data",
        description="",
    )
    trial = try_batches(
        pipeline.contract,
        samples.batches(found, pipeline, rows, settings),
        limits_of(pipeline, settings),
        datetime.now(UTC),
    )
    for path, text in (
        (target.contract, contract),
        (target.pipeline, pipeline_source(stream, sources, target.place, more)),
    ):
        _write(path, text)
    files = (target.contract, target.pipeline)
    return Written(inferred, sample, trial, files, _next_steps(what, found, stream, target, settings))


def name_of(what: NamedFile | NamedTopic) -> str:
    """Make the name of a stream: of the archive's folder, of the file without date and endings, or of the topic."""
    stem = what.name
    if isinstance(what, NamedFile):
        stem = what.folder or PurePosixPath(what.name).name.partition(".")[0]
    words = identifier(stem).split("_")
    plain = [word for word in words if not word.isdigit()]
    found = "_".join(plain if plain and plain != ["n"] else words)
    found = re.sub(r"^n_(?=[a-z])", "", found) if words[0] == "n" else found
    return found[:_LONGEST].rstrip("_")


def target_of(stream: str, to: Path | None, settings: Settings) -> Target:
    """Say where the files of a stream belong."""
    project = settings.project
    if to is None and project is not None:
        folder = settings.pipelines or project.pipelines
        contract = project.root / "contracts" / f"{stream}.py"
        return Target(contract, folder / f"{stream}_pipeline.py", Place(f"contracts.{stream}", own=True))
    folder = to or settings.pipelines or Path()
    place = Place(f"{stream}_contract", own=False)
    return Target(folder / f"{stream}_contract.py", folder / f"{stream}_pipeline.py", place)


def _require_free(stream: str, target: Target, settings: Settings, *, named: bool, force: bool) -> None:
    """Refuse a name that no stream can have or that another one has, and files that exist."""
    if (
        not IDENTIFIER.fullmatch(stream)
        or keyword.iskeyword(stream)
        or len(stream) > _LONGEST
        or stream.lower() in _TAKEN
    ):
        raise Fatal(
            f"{stream!r} is no name of a stream: up to {_LONGEST} letters, digits and _, a letter first, no word of"
            " Python; give one with --name"
        )
    there = discover_for(settings)
    tables = {t.name: other for other, one in there.pipelines.items() for t in one.tables}
    for table in (stream, f"{stream}_rejected"):
        other = tables.get(table)
        if other is not None and there.files[other].resolve() != target.pipeline.resolve():
            raise Fatal(
                f"stream {other!r} has a table {table!r} already ({there.files[other].name}); give another name with"
                " --name"
            )
    for path in (target.contract, target.pipeline):
        if path.exists() and not force:
            other = "" if named else ", or give another name with --name"
            raise Fatal(f"{path} exists; replace it with --force{other}")


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text)
    except OSError as error:
        raise Fatal(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from error


def _sources(found: NamedFile | NamedTopic, stream: str, format: str) -> tuple[list[Call], list[str]]:
    """Declare the sources, and say which others there are."""
    if isinstance(found, NamedTopic):
        more = [f'Files("{stream}") would land files of the archive\'s folder {stream}/, too.']
        said = () if format == "json" else (("format", format),)
        return [Call("Kafka", (("", found.name), *said))], more
    more = [
        f'Files of this folder of the archive land by themselves; Kafka("{stream}") would read a topic, too.'
    ]
    return [Call("Files", (("", found.folder or stream),))], more


def _next_steps(
    what: str, found: NamedFile | NamedTopic, stream: str, target: Target, settings: Settings
) -> list[str]:
    steps = []
    folder = target.pipeline.parent.absolute()
    if folder not in settings.pipeline_folders:
        steps.append(f"export HEADRACE_PIPELINES={quote(str(folder))}")
    steps.append(f"headrace contracts try {quote(what)} --against {stream}")
    if isinstance(found, NamedFile) and not found.folder:
        archive = settings.archive_uri
        if archive.startswith("s3://"):
            steps.append(f"aws s3 cp {quote(what)} {quote(f'{archive}/{stream}/')}")
        else:
            into = quote(str(Path(archive) / stream))
            steps.append(f"mkdir -p {into} && cp {quote(what)} {into}/")
    steps.append(f"headrace ingest {stream}")
    return steps
