"""A person's file may do whatever it does: it is named, with its line, and the other streams come up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.config.settings import load_settings
from headrace.health import doctor, status
from headrace.pipelines import Discovered, discover
from headrace.pipelines.loading import left_behind

CONTRACT = '''
import pandera.polars as pa
import polars as pl

from headrace.core.batch import STRING_MAP
from headrace.contracts import Contract, Time, field


class Orders(pa.DataFrameModel):
    """An order."""

    order_id: pl.String = field("the shop's number", length=(1, 64), required=True)
    placed_at: Time = field("when it was placed", required=True)
    paid: {dtype} = field("flag")

    class Config:
        strict = True


ORDERS = Contract(
    name="orders",
    version=1,
    model=Orders,
    key="order_id",
    time="placed_at",
    partition="order_date",
    order_by=("placed_at",),
)
'''
PIPELINE = """
from orders_contract import ORDERS

from headrace.pipelines import Kafka, Pipeline

pipeline = Pipeline(contract=ORDERS, sources=(Kafka("orders"),), owner="a@example.com", description="Orders")
"""
#: By what is wrong: the file, and how the reason begins.
#: It waits in compiled code until somebody writes to ``held``.
HELD = "import os\nos.mkfifo('held')\nopen('held')\n"

MISTAKES = {
    "syntax": ("pipeline = (\n", "line 1: SyntaxError: '(' was never closed"),
    "an import": ("\nimport nothing_of_that_name\n", "line 2: ModuleNotFoundError: No module named 'nothing"),
    "a name": ("\n\n\npipeline = Pipelin()", "line 4: NameError: name 'Pipelin' is not defined"),
    "nothing": ("x = 1\n", "define `pipeline = Pipeline(...)` at the top level"),
    "a number": ("pipeline = 3\n", "define `pipeline = Pipeline(...)` at the top level; it is int 3"),
    "exit": ("import sys\nsys.exit('no licence')\n", "line 2: it ends the process: SystemExit(no licence)"),
    "quit": ("exit()\n", "line 1: it ends the process: SystemExit"),
    "Ctrl-C": ("raise KeyboardInterrupt\n", "line 1: KeyboardInterrupt"),
    "a base exception": ("class Odd(BaseException): pass\nraise Odd('so')\n", "line 2: Odd: so"),
    "a wicked message": (
        "class Odd(Exception):\n    def __str__(self):\n        raise ValueError\nraise Odd\n", "line 4: Odd",
    ),
    "a question": ("input('which?')\n", "line 1: EOFError"),
    "many lines": ("raise ValueError('a\\n' * 1000)\n", "line 1: ValueError: a a a"),
    "a lost folder": ("import os, sys\nsys.path.clear()\nraise OSError\n", "line 3: OSError"),
    "no text": (b"\xff\xfe\x00", "SyntaxError: "),
    "a loop": ("x = 0\nwhile True: x += 1\n", "line 2: it still loads after 1.5 s (HEADRACE_PIPELINE_SECONDS)"),
    "a lock": (
        HELD,
        "line 3: it still loads after 1.5 s (HEADRACE_PIPELINE_SECONDS)",
    ),
    "a stubborn loop": (
        "import os, time\nwhile not os.path.exists('enough'):\n    try:\n        time.sleep(0.01)\n"
        "    except BaseException:\n        pass\n",
        "line 4: it still loads after 1.5 s (HEADRACE_PIPELINE_SECONDS)",
    ),
    "a source": (
        "from headrace.pipelines import Files\n\nFiles('/etc')\n",
        "line 3: ValueError: folder '/etc' is not below the archive",
    ),
}  # fmt: skip
BUILT_IN = {"events", "metrics"}


def found_in(folder: Path, seconds: float = 1.5) -> Discovered:
    sys.modules.pop("orders_contract", None)
    return discover(folder, seconds=seconds)


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a stream that is right; what still loads in it is let go at the end.

    CPython 3.11 handles an exception that waits for a blocked thread at every check of its evaluation loop, in every
    thread, and never gets past a function's entry where ``sys.setprofile`` is on: nothing may be left behind.
    """
    (tmp_path / "orders_contract.py").write_text(CONTRACT.format(dtype="pl.String"))
    (tmp_path / "orders_pipeline.py").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    (tmp_path / "enough").touch()
    if (held := tmp_path / "held").exists():
        os.close(os.open(held, os.O_RDWR))
    for thread in threading.enumerate():
        if thread.name.startswith("load "):
            thread.join(30)
            assert not thread.is_alive(), f"{thread.name} is left behind"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_line_and_the_others_load(
    orders: Path, mistake: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content, said = MISTAKES[mistake]
    file = orders / "bad_pipeline.py"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = found_in(orders)
    assert set(found.pipelines) == BUILT_IN | {"orders"}
    assert list(found.broken) == ["bad_pipeline.py"]
    why = found.broken["bad_pipeline.py"]
    assert why.startswith(said) or (mistake == "no text" and said in why)
    assert "\n" not in why and len(why) < 800
    assert not capfd.readouterr().out
    assert "headrace_pipeline_bad_pipeline" not in sys.modules
    assert str(orders) not in sys.path

    file.write_text(PIPELINE.replace("contract=ORDERS", "contract=replace(ORDERS, name='bad')").replace(
        "\nfrom orders", "from dataclasses import replace\nfrom orders"))  # fmt: skip
    assert set(found_in(orders).pipelines) == BUILT_IN | {"orders", "bad"}, "well again after the repair"


def test_code_without_a_file_is_nobodys_in_the_folder(orders: Path) -> None:
    """Whoever stands in the folder of the pipelines sees the places that others see."""
    (orders / "bad_pipeline.py").write_text("exec('raise OSError(7)')\n")
    assert found_in(orders).broken["bad_pipeline.py"] == "line 1: OSError: 7"


@pytest.mark.parametrize(
    "dtype", ["pl.Categorical", "pl.Time", "pl.Duration", "pl.Int128", "pl.List", "pl.Enum", "pl.Datetime", "pl.Object"]
)  # fmt: skip
def test_a_dtype_that_cannot_be_landed_is_refused_with_the_choices(orders: Path, dtype: str) -> None:
    contract = orders / "orders_contract.py"
    text = CONTRACT.format(dtype="Paid").replace("\n\n\nclass", f"\n\nPaid = {dtype}\n\nclass", 1)
    contract.write_text(text)
    line = text[: text.index("ORDERS =")].count("\n") + 1
    found = found_in(orders)
    assert set(found.pipelines) == BUILT_IN
    why = found.broken["orders_pipeline.py"]
    assert why.startswith(f"orders_contract.py line {line}: contract 'orders': field 'paid' has dtype "), why
    assert "supported are pl.String, pl.Boolean, pl.Int8 to pl.Int64" in why


def test_a_fault_beside_a_pipeline_is_named_where_it_is(orders: Path) -> None:
    (orders / "orders_contract.py").write_text("x = 1\ny = (\n")
    assert found_in(orders).broken["orders_pipeline.py"].startswith("orders_contract.py line 2: SyntaxError")


def test_what_a_file_prints_is_no_output_of_a_command(
    orders: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (orders / "loud_pipeline.py").write_text(
        "print('hello')\n" + PIPELINE.replace("=ORDERS", "=0 and ORDERS")
    )
    found_in(orders)
    out, err = capfd.readouterr()
    assert (out, "hello" in err) == ("", True)


def test_the_second_of_one_name_is_named_with_the_line_of_its_declaration(orders: Path) -> None:
    (orders / "second_pipeline.py").write_text(PIPELINE)
    broken = found_in(orders).broken
    assert broken == {
        "second_pipeline.py": "line 6: stream 'orders' is already declared by orders_pipeline.py"
    }


def test_files_are_loaded_once_and_again_when_they_change(orders: Path) -> None:
    count = orders / "count"
    (orders / "counting_pipeline.py").write_text(
        f"with open({str(count)!r}, 'a') as file:\n    file.write('x')\nraise ValueError('one')\n"
    )
    for _ in range(3):
        discover(orders)
    assert count.read_text() == "x"
    (orders / "counting_pipeline.py").write_text(
        f"open({str(count)!r}, 'a').write('y')\nraise ValueError(2)\n"
    )
    assert "ValueError: 2" in discover(orders).broken["counting_pipeline.py"]
    assert count.read_text() == "xy"


def test_a_thread_may_discover(orders: Path) -> None:
    (orders / "stuck_pipeline.py").write_text(HELD)
    found: list[Discovered] = []
    thread = threading.Thread(target=lambda: found.append(found_in(orders)))
    thread.start()
    thread.join(60)
    assert set(found[0].pipelines) == BUILT_IN | {"orders"}
    assert found[0].broken["stuck_pipeline.py"].startswith("line 3: it still loads")
    assert left_behind() >= 1


def test_status_and_doctor_name_it(orders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HEADRACE_PIPELINES", str(orders))
    (orders / "orders_contract.py").write_text(CONTRACT.format(dtype="pl.Categorical"))
    sys.modules.pop("orders_contract", None)
    findings = {one.what: one for one in doctor.examine([doctor.pipelines])}
    assert findings["pipelines"].ok
    assert "orders_contract.py line " in findings["orders_pipeline.py"].said
    health = status.examine([], load_settings())
    assert not health.healthy
    [problem] = health.problems
    assert problem.startswith("orders_pipeline.py does not load: orders_contract.py line ")


def test_a_command_ends_although_a_file_hangs(orders: Path, tmp_path: Path) -> None:
    """Nothing waits for the thread that is left behind."""
    (orders / "stuck_pipeline.py").write_text("import time\ntime.sleep(600)\n")
    code = (
        "import sys, pathlib, headrace.pipelines as p;"
        "print(p.discover(pathlib.Path(sys.argv[1]), seconds=1).broken)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(orders)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ},
    )
    assert "line 2: it still loads after 1 s" in done.stdout
