"""Hold every definition of an installation: Headrace's own, the project's, and defaults of streams that have none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.metrics import plan as planning
from headrace.metrics.definitions import Dimension, Family, Metric, Model
from headrace.metrics.errors import DefinitionError, QuestionError, nearest
from headrace.metrics.loading import Widths, read
from headrace.metrics.windows import WINDOWS

if TYPE_CHECKING:
    from headrace.config.settings import Settings
    from headrace.metrics.question import Question
    from headrace.pipelines import Pipeline

#: Path, time and size of files.
Stamps = tuple[tuple[str, int, int], ...]
BUILTIN = Path(__file__).parent / "definitions"
#: Stream of a family that is of all of Headrace's own streams.
EVERY = "*"


@dataclass(frozen=True, slots=True)
class Schemas:
    """Databases of the warehouse: of the marts, whose name begins those beside it, and of the raw tables."""

    marts: str = "analytics"
    raw: str = "raw"

    def relation(self, model: Model) -> str:
        """Return the full name of a model in SQL."""
        database = {"marts": self.marts, "raw": self.raw}.get(model.place, f"{self.marts}_{model.place}")
        return f"{database}.{model.name}"


@dataclass(frozen=True)
class Catalogue:
    """Every definition.

    Attributes:
        families: By name.
        schemas: Where the models lie.
        own_width: Width of the marts' own windows, s.
        speed_days: Days that the live models reach back.
    """

    families: Mapping[str, Family]
    schemas: Schemas = field(default_factory=Schemas)
    own_width: int = 60
    speed_days: int = 3

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:
        """All metrics by name, in the order of the files."""
        return {name: one for family in self.families.values() for name, one in family.metrics.items()}

    def metric(self, name: str) -> Metric:
        """Return a metric by its name.

        Raises:
            QuestionError: There is none; the nearest one is named.
        """
        found = self.metrics.get(name) if isinstance(name, str) else None
        if found is None:
            raise QuestionError(
                "metric",
                name,
                "there is no such metric",
                nearest=nearest(name, self.metrics),
                choices=self.metrics,
            )
        return found

    def family(self, metric: Metric) -> Family:
        """Return the family of a metric."""
        return self.families[metric.family]

    def dimensions_of(self, metric: Metric) -> dict[str, Dimension]:
        """Return the dimensions that a metric has, by name."""
        return {name: self.family(metric).dimensions[name] for name in metric.dimensions}

    def windows_of(self, metric: Metric) -> tuple[str, ...]:
        """Return the names of the windows that a metric has, from the narrowest on."""
        return planning.offered(metric, self.family(metric).models)

    def resolution(self, metric: Metric) -> int:
        """Return the width to which ranges of a metric are cut, s."""
        return planning.resolution(metric, self.family(metric).models, self.own_width)

    def plan(self, question: Question) -> planning.Plan:
        """Return the models that answer a question.

        Raises:
            QuestionError: No model can answer it rightly.
        """
        shape = planning.Shape(
            WINDOWS[question.window],
            question.dimensions,
            {name: len(values) for name, values in question.filters},
            question.start,
            question.end,
        )
        return self.planned(self.metric(question.metric), shape)

    def planned(self, metric: Metric, shape: planning.Shape) -> planning.Plan:
        """Return the models that answer what has a shape."""
        family = self.family(metric)
        return planning.choose(metric, family.models, family.dimensions, shape)

    @cached_property
    def relations(self) -> tuple[str, ...]:
        """Full names of all tables and views that answers are made of: what a reader needs to be granted."""
        return tuple(sorted({self.schemas.relation(model) for _, model in self.models()}))

    def models(self) -> Iterator[tuple[Family, Model]]:
        """Yield the models of which some metric is counted, with their families."""
        for family in self.families.values():
            used = {name for one in family.metrics.values() for name in one.models}
            yield from ((family, model) for name, model in family.models.items() if name in used)


def load(
    settings: Settings,
    pipelines: Mapping[str, Pipeline] | None = None,
    reading: Callable[[Path, Widths], Family | None] = read,
) -> Catalogue:
    """Load the definitions of an installation.

    Args:
        settings: Its settings.
        pipelines: All streams; None discovers them, which imports the files of the project.
        reading: Reads a file of the project; None leaves it out.

    Raises:
        DefinitionError: A file declares what is not possible, or two files declare one name.
    """
    widths = Widths(settings.window_seconds, _rollups(settings))
    own = settings.builtin_streams
    families = [
        one
        for one in (read(path, widths) for path in sorted(BUILTIN.glob("*.yml")))
        if one.stream in own or (one.stream == EVERY and own)
    ]
    own_files = (reading(path, widths) for path in project_files(settings))
    families += [one for one in own_files if one is not None]
    families += _defaults(settings, pipelines, {one.stream for one in families})
    schemas = Schemas(settings.dbt_schema, settings.raw_database)
    return Catalogue(_together(families), schemas, settings.window_seconds, settings.speed_days)


def project_files(settings: Settings) -> list[Path]:
    """Return the files of definitions of the project, ``metrics/*.yml`` beside ``headrace.toml``."""
    if settings.project is None:
        return []
    return sorted(path for end in ("yml", "yaml") for path in settings.project.metrics.glob(f"*.{end}"))


def stamps(settings: Settings) -> Stamps:
    """Return a value that changes whenever a file does of which definitions are made."""
    found = []
    for path in project_files(settings):
        try:
            state = path.stat()
        except OSError:  # removed, or a dangling link
            found.append((str(path), 0, 0))
        else:
            found.append((str(path), state.st_mtime_ns, state.st_size))
    if settings.pipeline_folders:  # streams without a file have definitions, too
        from headrace.pipelines.modules import written

        found += written(settings.pipeline_folders)
    return tuple(found)


def _defaults(
    settings: Settings, pipelines: Mapping[str, Pipeline] | None, named: Iterable[str]
) -> list[Family]:
    from headrace.metrics import defaults

    if pipelines is None:
        if not settings.pipeline_folders:
            return []
        from headrace.pipelines import discover_for

        pipelines = discover_for(settings).pipelines
    left = {*named, *settings.builtin_streams}
    own = [one for name, one in pipelines.items() if name not in left]
    manifest = _last_manifest(settings) if own else None
    return [defaults.family(one, manifest) for one in own]


def _last_manifest(settings: Settings) -> dict[str, Any] | None:
    """Return dbt's manifest as it was last made; None if there is none. Nothing is parsed."""
    from headrace.models import project, versions

    version = versions.last_parsed(settings)
    try:
        return project.read(version.manifest) if version else None
    except OSError:
        return None  # cleared away at this moment


def _together(families: Iterable[Family]) -> dict[str, Family]:
    found: dict[str, Family] = {}
    names: dict[str, Family] = {}
    for one in families:
        if one.name in found:
            raise DefinitionError(
                one.file, "family", f"{one.name!r} is already that of {found[one.name].file}"
            )
        found[one.name] = one
        for name in one.metrics:
            if name in names:
                raise DefinitionError(
                    one.file, f"metrics.{name}", f"it is already defined in {names[name].file}"
                )
            names[name] = one
    return found


def _rollups(settings: Settings) -> tuple[int, ...]:
    """Return the widths of the roll-ups: a var of dbt, which a project may set."""
    import yaml  # type: ignore[import-untyped]

    from headrace.config.shipped import DBT, shipped

    folders = [shipped(DBT), *([settings.project.dbt] if settings.project else [])]
    found: Any = None
    for folder in folders:
        try:
            given = yaml.safe_load((folder / "dbt_project.yml").read_text(encoding="utf-8")).get("vars") or {}
        except (OSError, ValueError, AttributeError, yaml.YAMLError):
            continue  # dbt says what is wrong with it
        own = given.get("headrace")
        nested = own.get("rollup_seconds") if isinstance(own, dict) else None
        found = nested or given.get("rollup_seconds") or found
    listed = found if isinstance(found, list) else []
    return tuple(one for one in listed if type(one) is int) or Widths().rollups
