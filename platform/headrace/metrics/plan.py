"""Choose the models that answer a question: such that its numbers are right, of those the ones with the fewest rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from headrace.metrics import windows
from headrace.metrics.definitions import WINDOW, Dimension, Metric, Model
from headrace.metrics.errors import QuestionError
from headrace.metrics.windows import ALL, DAY, WINDOWS, Window


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a question decides by which models it is answered.

    Attributes:
        window: Window of the rows.
        dimensions: Dimensions of the rows.
        filters: Dimensions that are filtered, with the number of values each.
        start, end: The range; None where it is not known yet, and will be whole windows.
        closed: Whether the whole range lies before the days of the live models.
    """

    window: Window
    dimensions: tuple[str, ...]
    filters: Mapping[str, int]
    start: datetime | None = None
    end: datetime | None = None
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The models of an answer.

    Attributes:
        batch: What the last build has read; None if the live model answers everything.
        live: What was published a moment ago, for days that the speed layer reaches; None if no such model can.
    """

    batch: Model | None
    live: Model | None

    @property
    def models(self) -> tuple[Model, ...]:
        """Both, without what is not there."""
        return tuple(one for one in (self.batch, self.live) if one)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a model does not do. The field that could be changed, and to what."""

    field: str
    value: object
    said: str
    nearest: str | None = None
    #: How close the model came: of several refusals, the last one is said.
    close: int = 0


def choose(
    metric: Metric, models: Mapping[str, Model], dimensions: Mapping[str, Dimension], shape: Shape
) -> Plan:
    """Choose the models of an answer.

    Raises:
        QuestionError: No model can answer it rightly.
    """
    serving: list[Model] = []
    refusals: list[_Refusal] = []
    within = min((w for n in (*shape.dimensions, *shape.filters) if (w := dimensions[n].within)), default=0)
    for name in metric.models:
        refusal = _refusal(metric, models[name], dimensions, shape)
        if refusal is None:
            serving.append(_up_to(models[name], within))
        else:
            refusals.append(refusal)
    live = [
        one for one in serving if one.live and _cuts(one, shape.start, shape) and _cuts(one, shape.end, shape)
    ]
    # where a live model answers the end, the others need not end with whole windows
    end = None if live and not shape.closed else shape.end
    batch = [
        one for one in serving if not one.live and _cuts(one, shape.start, shape) and _cuts(one, end, shape)
    ]
    plan = Plan(_fewest_rows(batch, shape), _fewest_rows(live, shape))
    if plan.models:
        return plan
    best = max([*refusals, *_too_wide(serving, shape)], key=lambda one: one.close)
    raise QuestionError(best.field, best.value, best.said, nearest=best.nearest)


def _up_to(model: Model, within: int) -> Model:
    """Leave out the windows of a model that are too wide to tell a dimension, such as days of the hour of the day."""
    return replace(model, widths=tuple(w for w in model.widths if w <= within)) if within else model


def _fewest_rows(models: list[Model], shape: Shape) -> Model | None:
    """Take the model with the widest windows, of equals the first: a row of its own time is the narrowest."""
    return max(models, key=lambda one: width_for(one, shape.window) or 0, default=None)


def width_for(model: Model, window: Window) -> int | None:
    """Return the greatest width of a model's windows of which a window is made; None if a row has its own time."""
    return max((w for w in model.widths if _makes(w, window)), default=None)


def _makes(width: int, window: Window) -> bool:
    return window.spans_days or window.name == ALL or (window.seconds or 0) % width == 0


def _cuts(model: Model, time: datetime | None, shape: Shape) -> bool:
    """Tell whether a window of a model begins at a time, so that a range may begin or end there."""
    width = width_for(model, shape.window)
    return width is None or time is None or windows.is_aligned(time, width)


def _too_wide(serving: list[Model], shape: Shape) -> Iterator[_Refusal]:
    for model in serving:
        width = width_for(model, shape.window) or DAY
        for field, time in (("from", shape.start), ("to", shape.end)):
            if time is not None and not windows.is_aligned(time, width):
                near = (windows.floor if field == "from" else windows.ceil)(time, width)
                said = f"no window of {model.name} begins there; they are {width} s wide"
                yield _Refusal(field, time.isoformat(), said, nearest=near.isoformat(), close=4)


def _refusal(
    metric: Metric, model: Model, dimensions: Mapping[str, Dimension], shape: Shape
) -> _Refusal | None:
    asked = (*shape.dimensions, *shape.filters)
    for name in asked:
        field = "dimensions" if name in shape.dimensions else "filters"
        if name not in model.dimensions:
            return _Refusal(field, name, f"{model.name} does not have it beside the others")
        within = dimensions[name].within
        if within and model.widths and min(model.widths) > within:
            return _Refusal(field, name, f"the windows of {model.name} are too wide to tell it")
        model = _up_to(model, within)
    if model.widths and width_for(model, shape.window) is None:
        return _Refusal("window", shape.window.name, f"{model.name} has no windows that narrow", close=1)
    return _sums(metric, model, dimensions, shape)


def _sums(metric: Metric, model: Model, dimensions: Mapping[str, Dimension], shape: Shape) -> _Refusal | None:
    """Refuse to aggregate rows of a model over what a metric does not add up over."""
    if metric.adds_up_over is None:
        return None
    fixed = {*shape.dimensions, *(name for name, values in shape.filters.items() if values == 1)}
    fixed |= {other for name in fixed for other in dimensions[name].determines}
    for name in model.grain:
        if name not in metric.adds_up_over and name not in fixed:
            said = f"{metric.name} does not add up over {name}: ask for it as a dimension, or filter on one value"
            return _Refusal("dimensions", list(shape.dimensions), said, nearest=name, close=3)
    if WINDOW in metric.adds_up_over or not model.widths:
        return None
    width = width_for(model, shape.window)
    if shape.window.seconds != width:
        near = next((w.name for w in WINDOWS.values() if w.seconds in model.widths), None)
        said = f"{metric.name} does not add up over time"
        return _Refusal("window", shape.window.name, said, nearest=near, close=2)
    return None


def offered(metric: Metric, models: Mapping[str, Model]) -> tuple[str, ...]:
    """Return the names of the windows that a metric has, from the narrowest on."""
    own = [models[name] for name in metric.models]
    return tuple(name for name, window in WINDOWS.items() if any(_has(metric, one, window) for one in own))


def _has(metric: Metric, model: Model, window: Window) -> bool:
    if not model.widths:
        return True
    if metric.adds_up_over is not None and WINDOW not in metric.adds_up_over:
        return window.seconds in model.widths
    return width_for(model, window) is not None


def resolution(metric: Metric, models: Mapping[str, Model], own: int) -> int:
    """Return the narrowest width to which a range of the metric can be cut, s."""
    found = [min(models[name].widths, default=min(own, 60)) for name in metric.models]
    return min(*found, DAY) if found else DAY
