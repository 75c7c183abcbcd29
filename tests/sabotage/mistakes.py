"""The catalogue: what is planted, and by which words it must be named.

A mistake is files with content in one of the places of an installation. It is repaired by taking them back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

#: Where files are planted: the folder of ``HEADRACE_PIPELINES``, the dbt project, the migrations, ``HEADRACE_HOME``; or
#: the topic of the stream ``well``, whose messages they are.
Place = Literal["pipelines", "models", "migrations", "home", "topic"]


@dataclass(frozen=True)
class Mistake:
    """Something that is wrong.

    Attributes:
        name: For people.
        place: Where the files are planted.
        files: Path within the place to content; None makes a folder.
        named: A regular expression that what Headrace says of it matches.
    """

    name: str
    place: Place
    files: Mapping[str, bytes | None]
    named: str

    def __str__(self) -> str:
        return self.name


_STREAM = '''\
"""A stream of somebody's own."""

import pandera.polars as pa
import polars as pl

from headrace.contracts import Contract, Time, field
from headrace.pipelines import Cadence, Files, Kafka, Pipeline, Sqs, Thresholds


class Rows(pa.DataFrameModel):
    """A row."""

    id: pl.String = field("its number", required=True)
    at: Time = field("when it happened", required=True)
    kind: pl.String = field("which one", required=True)
    note: pl.String = field("what else is to be said")
    size: pl.Float64 = field("how large, m")
    {more}

    class Config:
        strict = True


CONTRACT = Contract(
    name={name!r},
    version={version},
    model=Rows,
    key={key!r},
    time={time!r},
    partition={partition!r},
    order_by={order_by},
)
pipeline = Pipeline(
    contract=CONTRACT,
    sources={sources},
    owner={owner!r},
    description="Rows of somebody",
    {options}
)
'''


@dataclass(frozen=True)
class Stream:
    """A pipeline file that is right but for what is changed."""

    name: str = "rows"
    more: str = ""
    version: int = 1
    key: str = "id"
    time: str = "at"
    partition: str = "day"
    order_by: str = "('kind', 'at')"
    sources: str = "(Files('rows'),)"
    owner: str = "rows@example.com"
    options: str = ""

    @property
    def text(self) -> str:
        return _STREAM.format(**self.__dict__)

    @property
    def source(self) -> bytes:
        return self.text.encode()

    def line(self, words: str) -> int:
        """The number of the line that holds these words."""
        return next(n for n, line in enumerate(self.text.splitlines(), 1) if words in line)


#: One that is right: it must go on whatever is planted beside it.
WELL = Stream(name="well", sources="(Kafka('well'),)", options="cadence=Cadence(),")


def _file(name: str, content: str | bytes, named: str) -> Mistake:
    """A mistake in one pipeline file, of which file and line are named."""
    stem = "".join(c if c.isalnum() else "_" for c in name).strip("_")
    path = f"{stem}_pipeline.py"
    raw = content if isinstance(content, bytes) else content.encode()
    return Mistake(name, "pipelines", {path: raw}, rf"{stem}_pipeline\.py{named}")


def _stream(title: str, named: str, /, **changes: object) -> Mistake:
    """A mistake in what a pipeline file declares; the name of its stream is its own."""
    stem = "".join(c if c.isalnum() else "_" for c in title)
    one = Stream(**{"name": stem[:40], "sources": f"(Files({stem!r}),)", **changes})  # type: ignore[arg-type]
    return _file(title, one.source, rf".*{named}")


PIPELINES = (
    _file("syntax error", "x = 1\npipeline = Pipeline(\n", r".*line 2\b.*never closed"),
    _file("missing module", "import os\nimport no_such_module\n", r".*line 2\b.*no_such_module"),
    _file("wrong name", "x = 1\n\npipeline = Pipelin()\n", r".*line 3\b.*Pipelin"),
    _file("import that exits", "import sys\nsys.exit(3)\n", r".*line 2\b.*SystemExit|exits"),
    _file("import that hangs", "while True:\n    pass\n", r".*line [12]\b.*still loads"),
    _file("endless recursion", "def f():\n    return f()\nf()\n", r".*line [23]\b.*[Rr]ecursion"),
    _file("generator exit", "raise GeneratorExit\n", r".*line 1\b"),
    _file("no pipeline", "x = 1\n", ".*define `pipeline"),
    _file("pipeline of another kind", "pipeline = 3\n", ".*define `pipeline"),
    _file("not utf-8", "x = 'caf\u00e9'\npipeline = 3\n".encode("latin-1"), ".*(utf-8|UTF-8|encoding)"),
    _file("null byte", b"pipeline = 1\x00\n", ".*null bytes"),
    _file("error in an expression", f"{WELL.text}\n1 / 0\n", r".*line \d+\b.*division by zero"),
    Mistake(
        "a folder", "pipelines", {"folder_pipeline.py": None}, r"folder_pipeline\.py.*(directory|folder)"
    ),
    _stream("no sources", "at least one source", sources="()"),
    _stream("owner", "'nobody' is neither", owner="nobody"),
    _stream("source twice", "declared twice", sources="(Files('a'), Files('a'))"),
    _stream("folder outside", "not below the archive", sources="(Files('../secrets'),)"),
    _stream("topic", "topic", sources="(Kafka('no topic!'),)"),
    _stream("queue of another", "already read by stream 'metrics'", sources="(Sqs('metrics'),)"),
    _stream("stream of another", "stream 'events' is already declared", name="events"),
    _stream("table of another", "already that of stream", name="events_rejected"),
    _stream("rate", "reject_rate", options="thresholds=Thresholds(reject_rate=5),"),
    _stream(
        "warn only", "no_such_check", options="thresholds=Thresholds(warn_only=frozenset({'no_such_check'})),"
    ),
    _stream("tags", "tag", options="tags={'not a tag!': 'ü' * 100},"),
)

#: Only who knows the models can tell.
UNTAGGED = (_stream("models of nothing", "no_such_tag", options="models='no_such_tag',"),)

CONTRACTS = (
    _stream("list of objects", r"\bmore\b.*Object", more="more: pl.List(pl.Object) = field('anything')"),
    _stream("object column", r"\bmore\b.*Object", more="more: pl.Object = field('anything')"),
    _stream("partition is a column", "partition.*'kind'.*", partition="kind"),
    _stream("partition is no name", "partition", partition="the day"),
    _stream("time is no column", "time.*'att'.*'?at'?", time="att"),
    _stream("time is a text", "time.*'kind'", time="kind"),
    _stream("key is no column", "key.*'idd'.*'?id'?", key="idd"),
    _stream("key may be null", "key.*'note'", key="note"),
    _stream("order by nothing", "order_by.*'kindd'.*'?kind'?", order_by="('kindd',)"),
    _stream("order by null", "order_by.*'note'", order_by="('note',)"),
    _stream("order by is empty", "order_by", order_by="()"),
    _stream("name is no identifier", "name.*'drop table x; --'", name="drop table x; --"),
    _stream("version", "version.*0", version=0),
    _stream("column of the origin", "_offset", more="_offset: pl.Int64 = field('where')"),
    _stream("checks that contradict", "more.*(ge|le|5|3)", more="more: pl.Float64 = field('x', ge=5, le=3)"),
    _stream(
        "lengths that contradict",
        "line 18\\b.*(9|length)",
        more="more: pl.String = field('x', length=(9, 3))",
    ),
    _stream(
        "default against its check",
        "more.*default",
        more="more: pl.String = field('x', isin=['a'], default='b')",
    ),
    _stream(
        "pattern", "line 18\\b.*(missing|unterminated)", more="more: pl.String = field('x', str_matches='(')"
    ),
    _stream("wire of another dtype", "more.*wire", more="more: pl.Float64 = field('x', wire='map')"),
)

#: Each breaks the whole dbt project for its parser, or one model when it is built.
MODELS = (
    Mistake(
        "half-written Jinja",
        "models",
        {"models/marts/half.sql": b"select 1\nfrom {{ ref('stg_events'\n"},
        r"half\.sql(:2)?",
    ),
    Mistake(
        "reference to nothing",
        "models",
        {"models/marts/lost.sql": b"select * from {{ ref('stg_nothing') }}\n"},
        r"lost\.sql.*stg_nothing|stg_nothing.*lost",
    ),
    Mistake(
        "half-written YAML",
        "models",
        {"models/marts/half.yml": b"models:\n  - name: [half\n"},
        r"half\.yml(:\d)?",
    ),
    Mistake(
        "a model twice",
        "models",
        {"models/staging/more/stg_events.sql": b"select 1 as one\n"},
        "stg_events",
    ),
    Mistake(
        "models in a circle",
        "models",
        {
            "models/marts/a.sql": b"select * from {{ ref('b') }}\n",
            "models/marts/b.sql": b"select * from {{ ref('a') }}\n",
        },
        r"[Cc]ycle|circle",
    ),
    Mistake(
        "unknown macro",
        "models",
        {"models/marts/mac.sql": b"select {{ no_such_macro(1) }} as one\n"},
        "no_such_macro",
    ),
    Mistake("broken project", "models", {"dbt_project.yml": b"name: [headrace\n"}, r"dbt_project\.yml"),
)

MIGRATIONS = (
    Mistake("name", "migrations", {"next.sql": b"select 1"}, r"next\.sql"),
    Mistake("number twice", "migrations", {"0001_again.sql": b"select 1"}, r"0001_again\.sql.*same number"),
    Mistake(
        "placeholder",
        "migrations",
        {"0999_more.sql": b"create table {{row}}.x (a Int8) engine = Memory"},
        r"0999_more\.sql.*row",
    ),
    Mistake("quote without an end", "migrations", {"0999_open.sql": b"select 'x"}, r"0999_open\.sql"),
)


#: Only the warehouse can say what is wrong with it.
LIVE_MIGRATIONS = (
    Mistake("broken SQL", "migrations", {"0999_broken.sql": b"create tabel {{raw}}.x"}, r"0999_broken\.sql"),
)

#: What dbt parses and the warehouse refuses, or never answers.
BUILDS = (
    Mistake(
        "a view of nothing",
        "models",
        {"models/intermediate/int_nothing.sql": b"select no_such_column from {{ ref('stg_events') }}\n"},
        "int_nothing",
    ),
    Mistake(
        "a view by another name",
        "models",
        {"models/intermediate/int_odd.sql": b"selekt 1 as one\n"},
        "int_odd|selekt",
    ),
)

#: Messages.
DATA = (
    Mistake(
        "a huge payload",
        "topic",
        {"1": b'{"id": "' + b"x" * (4 << 20) + b'"}'},
        "max_message_bytes|bytes|size|large|long",
    ),
    Mistake(
        "an array of wrong elements",
        "topic",
        {"1": b"[" + b",".join([b"1"] * 200_000) + b"]"},
        "record|object",
    ),
    Mistake(
        "no JSON",
        "topic",
        {"1": b"\x00\xff\xfe", "2": b"", "3": b'{"id":', "4": b"[[[[" * 1000},
        "json|utf|empty",
    ),
    Mistake("other types", "topic", {"1": b'{"id": 1, "at": 2, "kind": [], "size": "x"}'}, "type"),
)


@dataclass(frozen=True)
class Setting:
    """A setting with a wrong value, or one that does not exist.

    Attributes:
        environment: What is set.
        named: A regular expression that the one line of any command matches.
    """

    environment: Mapping[str, str]
    named: str = field(default="")

    def __str__(self) -> str:
        return "".join(self.environment)


SETTINGS = (
    Setting({"HEADRACE_KAFKA_BOOTSTRAP_SERVER": "x:1"}, "did you mean HEADRACE_KAFKA_BOOTSTRAP_SERVERS"),
    Setting({"HEADRACE_BATCH_MESSAGES": "many"}, "HEADRACE_BATCH_MESSAGES='many'"),
    Setting({"HEADRACE_BATCH_MESSAGES": "-1"}, "HEADRACE_BATCH_MESSAGES='-1'"),
    Setting({"HEADRACE_CLICKHOUSE_PORT": "99999"}, "HEADRACE_CLICKHOUSE_PORT"),
    Setting({"HEADRACE_RAW_DATABASE": "a;b"}, "HEADRACE_RAW_DATABASE"),
    Setting({"HEADRACE_KAFKA_SECURITY": "{"}, "(?i)kafka_security"),
    Setting({"HEADRACE_ALERTS": "[1"}, "HEADRACE_ALERTS"),
    Setting({"HEADRACE_ARCHIVE": "ftp://x"}, "HEADRACE_ARCHIVE"),
    Setting({"HEADRACE_UI_URL": "there"}, "HEADRACE_UI_URL"),
    Setting({"HEADRACE_PIPELINES": "/nowhere/at all"}, "/nowhere/at all"),
)

#: Small files of state that a crash, a full disk or a person left: what holds and what is said.
STATE = (
    Mistake("circuit: no JSON", "home", {"breakers/warehouse.json": b"\x00\xff{"}, ""),
    Mistake(
        "circuit: other types",
        "home",
        {"breakers/lake.json": b'{"state": 7, "failures": "x", "opened_at": []}'},
        "",
    ),
    Mistake("circuit: a list", "home", {"breakers/kafka.json": b"[1, 2]"}, ""),
    Mistake(
        "circuit: opened in the future",
        "home",
        {
            "breakers/warehouse.json": b'{"state": "open", "failures": 5, "opened_at": "2099-01-01T00:00:00+00:00"}'
        },
        "",
    ),
    Mistake("circuit: empty", "home", {"breakers/sqs.json": b""}, ""),
    Mistake("index of files: no JSON", "home", {"archive_index/events-events.json": b"{"}, ""),
    Mistake("index of files: a list", "home", {"archive_index/events-events.json": b"[3]"}, ""),
    Mistake("alerts: no JSON", "home", {"alerts.json": b"\x00"}, ""),
    Mistake("manifest: half", "home", {"dbt/target/manifest.json": b'{"nodes": {'}, ""),
    Mistake("manifest: empty", "home", {"dbt/target/manifest.json": b""}, ""),
    Mistake("parsed project: garbage", "home", {"dbt/target/partial_parse.msgpack": b"\xc1\xc1"}, ""),
    Mistake("lineage: half", "home", {"dbt/target/lineage.json": b"{"}, ""),
)
