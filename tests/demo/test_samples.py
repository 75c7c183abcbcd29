"""The samples that the demo of a project lands: each through one source, whatever a stream declares."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.config.settings import load_settings
from headrace.core.errors import Fatal
from headrace.demo.samples import find_samples
from headrace.scaffold.project import create


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the example stream."""
    root = create(tmp_path / "shop").root
    monkeypatch.chdir(root)
    return root


@pytest.mark.parametrize(
    ("sources", "source"),
    [
        ('Files("orders")', "files/orders"),
        ('Kafka("orders"), Files("orders")', "files/orders"),  # the platform reads the folder anyway
        ('Kafka("orders"), Sqs("orders"), Files("elsewhere")', "kafka/orders"),
        ('Sqs("orders")', "sqs/orders"),
    ],
)
def test_a_sample_lands_through_one_source(shop: Path, sources: str, source: str) -> None:
    file = shop / "pipelines" / "orders_pipeline.py"
    text = (
        file.read_text()
        .replace('Files("orders")', sources)
        .replace("import Files", "import Kafka, Sqs, Files")
    )
    file.write_text(text)
    [found] = find_samples(load_settings(), shop / "data")
    assert (found.source.name, [one.name for one in found.files]) == (source, ["sample.csv"])


def test_without_a_sample_the_next_step_is_said(shop: Path) -> None:
    (shop / "data" / "orders" / "sample.csv").unlink()
    with pytest.raises(Fatal, match="no stream of this project has a sample: put files into data/NAME/"):
        find_samples(load_settings(), shop / "data")
