"""Print rows as a table that fits the terminal, or each row as a list where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Narrowest cut column, cells. If the table is still too wide, each row is printed as a list.
_NARROWEST = 14
#: Most rows on a terminal; a file gets all of them.
_SHOWN = 1_000
_BETWEEN, _MARGIN = 3, 1  # cells between two columns of box.SIMPLE, and beyond that at its edges


def show(
    console: Console, names: Sequence[str], rows: Sequence[Sequence[Any]], *, counted: bool = True
) -> None:
    """Print rows, as wide as the terminal or at full width elsewhere, and on a terminal how many they are."""
    terminal = console.is_terminal
    shown = rows[:_SHOWN] if terminal else rows
    cells = [[_text(value) for value in row] for row in shown]
    natural = [
        max([cell_len(name), *(cell_len(row[place]) for row in cells)]) for place, name in enumerate(names)
    ]
    widths = fitted(natural, console.width) if terminal else natural
    if widths is None:
        _show_upright(console, names, cells)
    else:
        numbers = [_is_numeric(rows, place) for place in range(len(names))]
        _show_table(console, names, cells, widths, numbers)
    if terminal and counted:
        more = f"; the first {_SHOWN:,} are shown: add a LIMIT, or --format csv" if len(rows) > _SHOWN else ""
        console.print(f"{len(rows):,} {'row' if len(rows) == 1 else 'rows'}{more}", style="dim")


def fitted(natural: Sequence[int], width: int) -> list[int] | None:
    """Fit the columns' widths to the screen, the widest cut first; None if too little would remain."""
    room = width - _MARGIN - _BETWEEN * len(natural)
    widths = list(natural)
    while sum(widths) > room:
        widest = max(widths)
        if widest <= _NARROWEST:
            return None
        columns = [place for place, one in enumerate(widths) if one == widest]
        next_widest = max((one for one in widths if one < widest), default=_NARROWEST)
        enough = -(-(sum(widths) - room) // len(columns))
        cut = max(next_widest, _NARROWEST, widest - enough)
        for place in columns:
            widths[place] = cut
    return widths


def _text(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        value = value.decode(errors="backslashreplace")
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in str(value))


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def _is_numeric(rows: Sequence[Sequence[Any]], place: int) -> bool:
    values = [row[place] for row in rows if row[place] is not None]
    return bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _show_table(
    console: Console,
    names: Sequence[str],
    cells: Sequence[Sequence[str]],
    widths: Sequence[int],
    numbers: Sequence[bool],
) -> None:
    table = Table(box=box.SIMPLE)
    for name, width, number in zip(names, widths, numbers, strict=True):
        table.add_column(
            Text(_cut(name, width)), justify="right" if number else "left", min_width=width, no_wrap=True
        )
    for row in cells:
        table.add_row(*(Text(_cut(cell, width)) for cell, width in zip(row, widths, strict=True)))
    if not console.is_terminal:  # without a terminal, the console's width is arbitrary
        console = Console(file=console.file, width=sum(widths) + _BETWEEN * len(widths) + _MARGIN)
    console.print(table)


def _show_upright(console: Console, names: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    wide = max(map(cell_len, names))
    for number, row in enumerate(cells, 1):
        console.print(Text(f"─ row {number:,} ".ljust(min(console.width, 40), "─"), "dim"))
        table = Table.grid(padding=(0, 1))
        table.add_column(style="bold", no_wrap=True, min_width=wide)
        table.add_column(overflow="fold")
        for name, cell in zip(names, row, strict=True):
            table.add_row(Text(name), Text(cell))
        console.print(table)
