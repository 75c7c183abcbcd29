"""A collector is open before the first stream is there to send to."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from headrace.collector.serve import opened
from headrace.config.settings import load_settings


def test_without_a_stream_that_has_a_topic_it_is_open_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HEADRACE_BUILTIN_STREAMS", "")
    settings = load_settings(with_stack=False)
    with caplog.at_level(logging.WARNING), opened(settings) as collector:
        assert not collector.targets
    assert "every event is refused" in caplog.text
