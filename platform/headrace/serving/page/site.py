"""The site: screens and their panels, and how a request becomes a page or one panel of it.

The frame comes first and asks for its panels, each by itself: a slow one delays nobody, and one that fails says why in
its own place. Without JavaScript the same panels come within the page.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from headrace.core.errors import BadData, HeadraceError, HistoryGone, Retriable
from headrace.serving.base import NotBuilt, TooMuch
from headrace.serving.page import words
from headrace.serving.page.address import DEFAULT_PERIOD, FILTERS, PERIODS, Span, View, Wrong
from headrace.serving.page.beside import Worker, Workers
from headrace.serving.page.numbers import Numbers

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
STATIC = HERE / "static"
#: Nothing from elsewhere, nothing inline, and no frame around it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
THEMES = ("auto", "light", "dark")
#: Seconds for which one panel may take, unless it says otherwise.
PANEL_SECONDS = 30.0
_SLOW = (
    "the warehouse took longer than one question may: rows that no model has counted yet are counted one by one."
    " Quality says how far the models are behind; ask for fewer days, or come again"
)
#: Seconds for which an examination of the installation holds.
HEALTH_SECONDS = 5.0


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(4, "look")


@dataclass(frozen=True, slots=True)
class Sources:
    """What panels read.

    Attributes:
        numbers: Answers of the metrics.
        looks: The process that reads lake and health.
        writes: The processes that write exports.
        dagster: Address of Dagster's UI.
    """

    numbers: Numbers
    looks: Worker
    writes: Workers
    dagster: str = ""
    _health: dict[str, Any] = field(default_factory=dict)
    _threads: ThreadPoolExecutor = field(
        default_factory=_threads
    )  # of their own: they wait, and others must not

    async def look(self, function: str, *arguments: Any, seconds: float = PANEL_SECONDS) -> Any:
        """Run a function of ``reading.functions`` without holding up others."""
        call = partial(self.looks.call, function, *arguments, seconds=seconds)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def health(self, seconds: float) -> Any:
        """Examine the installation; those who ask within some seconds share one answer."""
        found = self._health.get("task")
        if found is None or (found.done() and time.monotonic() > self._health["until"]):
            found = asyncio.ensure_future(self.look("health", seconds=seconds))
            found.add_done_callback(self._examined)
            self._health["task"] = found
        return await asyncio.shield(found)

    def _examined(self, task: asyncio.Future[Any]) -> None:
        failed = task.cancelled() or task.exception() is not None
        self._health["until"] = time.monotonic() + (0 if failed else HEALTH_SECONDS)


@dataclass(frozen=True, slots=True)
class Looking:
    """A look at one screen.

    Attributes:
        view: What the address asks for.
        span: Its range of time.
        now: The present (UTC).
        sources: What panels read.
    """

    view: View
    span: Span
    now: datetime
    sources: Sources

    @property
    def numbers(self) -> Numbers:
        """Answers of the metrics."""
        return self.sources.numbers

    @property
    def filters(self) -> dict[str, str]:
        """The filters of the address."""
        return dict(self.view.filters)


#: Reads what a panel's template is given.
Read = Callable[[Looking], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of a screen.

    Attributes:
        name: In its address.
        title: Its heading; empty for none.
        template: Its template below ``panels/``.
        read: Reads what the template is given.
        size: Classes of its width and height, so that nothing moves when it arrives.
        note: Beside the heading.
        label: What it is, where it has no heading.
        flush: Whether its content reaches its edges.
        live: Whether it comes anew with each publication.
        seconds: For which it may take.
    """

    name: str
    title: str
    template: str
    read: Read
    size: str = "w12 h-table"
    note: str = ""
    label: str = ""
    flush: bool = False
    live: bool = False
    seconds: float = PANEL_SECONDS + 5


@dataclass(frozen=True, slots=True)
class Screen:
    """A page of the site.

    Attributes:
        name: In addresses; the first part of the path.
        title: Its heading.
        said: What it answers, in a sentence.
        group: Under which it is in the menu.
        panels: Its parts, in order.
        template: Its template.
        parameters: Names of parameters of its own.
        filters: Filters that it takes.
        dated: Whether it has a range of time.
        compared: Whether it shows the period before.
        foot: What its numbers are made of.
        extra: Makes further values for its template.
    """

    name: str
    title: str
    said: str
    group: str
    panels: tuple[Panel, ...] = ()
    template: str = "screen.html"
    parameters: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    dated: bool = True
    compared: bool = False
    foot: str = ""
    extra: Callable[[Looking], Mapping[str, Any]] = field(default=lambda looking: {})

    @property
    def path(self) -> str:
        """Its path."""
        return "/" if self.name == "overview" else f"/{self.name}"

    def panel(self, name: str) -> Panel:
        """Return a panel by its name.

        Raises:
            Wrong: There is none.
        """
        found = next((one for one in self.panels if one.name == name), None)
        if found is None:
            raise Wrong(f"the screen {self.name} has no panel {name!r}", 404)
        return found


@cache
def release() -> str:
    """Return the installed version."""
    try:
        return installed("headrace")
    except PackageNotFoundError:
        return "from source"


@cache
def static(name: str) -> str:
    """Return the address of a file that is served as it is; its content is in it, so that it may be kept for ever."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


def environment() -> Environment:
    """Make the templates: everything is escaped, and a name that is missing is an error."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "number": words.number,
        "exact": words.exact,
        "percent": words.percent,
        "seconds": words.seconds,
        "millis": words.millis,
        "size": words.size,
        "measure": words.measure,
        "moment": words.moment,
        "day": words.day,
        "ago": words.ago,
        "plural": words.plural,
        "change": words.change,
    }
    made.globals["static"] = static
    return made


class Renderer:
    """Makes pages and panels."""

    def __init__(self, screens: Sequence[Screen], sources: Sources) -> None:
        """Hold the screens in the order of the menu."""
        self.screens = {one.name: one for one in screens}
        self.sources = sources
        self._templates = environment()

    def looking(self, view: View) -> Looking:
        """Return a look at what an address asks for."""
        now = datetime.now(UTC)
        return Looking(view, view.span(now), now, self.sources)

    async def page(self, screen: Screen, view: View, theme: str) -> str:
        """Return a whole page: its frame, and its panels where the browser has no JavaScript."""
        looking = self.looking(view)
        own = dict(screen.extra(looking))
        panels = own.pop("panels", screen.panels)
        wanted = {one.name: one for one in (*panels, *_choices(screen))}
        bodies: dict[str, str] = {}
        if view.plain:
            made = await asyncio.gather(*(self.body(one, looking) for one in wanted.values()))
            bodies = {name: body for name, (_, body) in zip(wanted, made, strict=True)}
        first, last = looking.span.days
        given = {
            **self._frame(screen, view, theme),
            "screen": screen,
            "view": view,
            "span": looking.span,
            "panels": [one for one in panels if not one.name.startswith("choices-")],
            "bodies": _Marked(bodies),
            "periods": PERIODS,
            "default_period": DEFAULT_PERIOD,
            "filter_names": FILTERS,
            "days_said": words.day(first) if first == last else f"{words.day(first)} to {words.day(last)}",
            "kept_fields": _kept(view),
            "said": screen.said,
            "foot": screen.foot,
            "crumbs": [],
            "version": release(),
            "now": looking.now,
        }
        return self._templates.get_template(screen.template).render({**given, **own})

    async def panel(self, screen: Screen, name: str, view: View) -> tuple[int, str]:
        """Return status and content of one panel; one that fails says why."""
        looking = self.looking(view)
        own = screen.extra(looking).get("panels", screen.panels)
        known = {one.name: one for one in (*own, *screen.panels, *_choices(screen))}
        if name not in known:
            raise Wrong(f"the screen {screen.name} has no panel {name!r}; it has: {', '.join(known)}", 404)
        return await self.body(known[name], looking)

    async def body(self, panel: Panel, looking: Looking) -> tuple[int, str]:
        """Return status and content of a panel."""
        try:
            async with asyncio.timeout(panel.seconds):
                given = await panel.read(looking)
        except Exception as error:
            return self._failed(panel, looking, error)
        shown = {"view": looking.view, "now": looking.now, "sources": looking.sources, **given}
        return 200, self._templates.get_template(f"panels/{panel.template}.html").render(shown)

    def _failed(self, panel: Panel, looking: Looking, error: Exception) -> tuple[int, str]:
        status, title, message = judged(error)
        if status == 500:
            log.error("the panel %s of %s failed", panel.name, looking.view.path, exc_info=error)
        again = looking.view.link() if looking.view.plain else looking.view.panel(panel.name)
        template = self._templates.get_template("panels/failed.html")
        return status, template.render(title=title, message=message, again=again)

    def wrong(self, error: Exception, theme: str, here: str) -> tuple[int, str]:
        """Return status and page of a request that cannot be answered."""
        status, title, message = judged(error)
        frame = {**self._frame(None, View("/"), theme), "title": title, "message": message, "here": here}
        return status, self._templates.get_template("wrong.html").render(frame)

    def _frame(self, screen: Screen | None, view: View, theme: str) -> dict[str, Any]:
        groups: dict[str, list[dict[str, Any]]] = {}
        for one in self.screens.values():
            href = view.link(one.path)
            current = screen is not None and one.name == screen.name
            groups.setdefault(one.group, []).append(
                {"href": href, "title": one.title, "icon": one.name, "current": current}
            )
        return {
            "menu": list(groups.items()),
            "title": screen.title if screen else "",
            "theme": theme,
            "here": view.link(),
            "plain": view.plain,
            "plain_link": view.link(plain="1") if screen else "",
        }


class _Marked(dict[str, Any]):
    """Panels that are rendered already, as markup."""

    def __getitem__(self, name: str) -> Any:
        from markupsafe import Markup

        return Markup(super().__getitem__(name))


def _choices(screen: Screen) -> list[Panel]:
    from headrace.serving.page.screens import choices

    return [choices.panel(name) for name in screen.filters]


def _kept(view: View) -> list[tuple[str, str]]:
    """Return the parameters that the form of days keeps."""
    kept = [*view.filters, *view.extra]
    kept += [] if view.compare else [("compare", "none")]
    return [*kept, ("plain", "1")] if view.plain else kept


def judged(error: BaseException) -> tuple[int, str, str]:
    """Return status, title and message of an error, for people."""
    if isinstance(error, NotBuilt):
        return 503, "Not built yet", str(error)
    if isinstance(error, TooMuch | TimeoutError):
        return 503, "Not yet", _SLOW
    if isinstance(error, Wrong):
        title = "There is no such page" if error.status == 404 else "That cannot be shown"
        return error.status, title, str(error)
    if isinstance(error, BadData):
        return 400, "That cannot be shown", str(error)
    if isinstance(error, Retriable):
        return 503, "No answer for now", str(error)
    if isinstance(error, HistoryGone):
        return 410, "That is no longer kept", str(error)
    if isinstance(error, HeadraceError):
        return 500, "This does not work", _brief(str(error))
    return 500, "This does not work", "a defect of the page; the log of the server says more"


def _brief(message: str) -> str:
    """Leave out the statement that the warehouse refused: the log has it."""
    return re.split(r"[.:]?\s+In scope |: While processing ", message)[0]
