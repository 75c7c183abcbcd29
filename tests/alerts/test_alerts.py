"""Channels against servers of their own, and a notifier that tells each of them once."""

from __future__ import annotations

import email
import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox
from click.testing import Result
from pytest_httpserver import HTTPServer
from typer.testing import CliRunner
from werkzeug import Response

from headrace.alerts import Address, Findings, Log, Notification, Notifier, Problem, addresses, verify
from headrace.cli import app
from headrace.config.settings import exported, load_settings, settings
from headrace.core.errors import Fatal
from headrace.local.processes import LOOPBACK, pick_port

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
SECRET = "s3cretT0ken"
PROBLEM = Problem(
    key="check/lake/events:reject_rate",
    what="check",
    title="check reject_rate of lake/events failed",
    reason="12 of 100 rows rejected (12.00%, limit 5.00%)",
    severity="warning",
    owners=("team:analytics",),
    link="http://127.0.0.1:3000/assets/lake/events?view=checks&checkDetail=reject_rate",
    began=NOW - timedelta(minutes=5),
    stream="events",
    asset="lake/events",
)
RUN = replace(
    PROBLEM, key="run/ingest_events", what="run", title="run of ingest_events failed", severity="error"
)


class Recorder:
    """A channel that remembers; ``down`` is what it says while it takes nothing."""

    def __init__(self, name: str = "one") -> None:
        self.id = self.label = name
        self.messages: list[list[tuple[str, str]]] = []
        self.down: str | None = None

    def send(self, notices: Sequence[Notification], /) -> str | None:
        if self.down is None:
            self.messages.append([(n.kind, n.problem.key) for n in notices])
        return self.down

    @property
    def told(self) -> list[tuple[str, str]]:
        """All of it, and nothing any more."""
        said, self.messages = [one for message in self.messages for one in message], []
        return said


def notifier_of(tmp_path: Path, *channels: Any, remind: float = 3600) -> Notifier:
    return Notifier(tmp_path / "alerts.json", channels, timedelta(seconds=remind))


def found(*problems: Problem, recovered: Sequence[str] = ()) -> Any:
    return lambda _book: Findings(list(problems), set(recovered))


def test_a_cause_is_told_once_again_after_a_while_and_when_it_is_over(tmp_path: Path) -> None:
    channel = Recorder()
    for minutes in range(0, 59, 7):  # each time by a new process
        notifier_of(tmp_path, channel).update(found(PROBLEM), NOW + timedelta(minutes=minutes))
    assert channel.told == [("new", PROBLEM.key)]
    later = NOW + timedelta(minutes=60)
    notifier_of(tmp_path, channel).update(found(PROBLEM), later)
    assert channel.told == [("reminder", PROBLEM.key)]
    for _ in range(3):
        notifier_of(tmp_path, channel).update(found(recovered=[PROBLEM.key]), later)
    assert channel.told == [("recovered", PROBLEM.key)]
    assert notifier_of(tmp_path, channel).state().alerts == {}
    notifier_of(tmp_path, channel).update(found(PROBLEM), later)
    assert channel.told == [("new", PROBLEM.key)]


def test_nothing_is_told_while_all_is_well_or_unchanged(tmp_path: Path) -> None:
    channel = Recorder()
    notifier = notifier_of(tmp_path, channel, remind=0)
    notifier.update(found(recovered=[PROBLEM.key, "run/other"]), NOW)
    assert channel.told == []
    assert not (tmp_path / "alerts.json").exists()
    notifier.update(found(PROBLEM), NOW)
    notifier.update(found(), NOW + timedelta(days=400))  # no reminders at zero
    assert channel.told == [("new", PROBLEM.key)]
    assert notifier.state().open[PROBLEM.key] == PROBLEM


def test_the_alert_keeps_when_it_began_and_takes_the_newest_reason(tmp_path: Path) -> None:
    notifier = notifier_of(tmp_path, Recorder())
    notifier.update(found(PROBLEM), NOW)
    notifier.update(found(replace(PROBLEM, began=NOW, reason="worse")), NOW)
    [now] = notifier.state().open.values()
    assert (now.began, now.reason) == (PROBLEM.began, "worse")


def test_a_channel_that_is_down_gets_it_later_and_the_others_not_twice(tmp_path: Path) -> None:
    up, down = Recorder("up"), Recorder("down")
    down.down = "connection refused"
    notifier = notifier_of(tmp_path, down, up)
    for _ in range(3):
        [why] = notifier.update(found(PROBLEM), NOW)
        assert "connection refused" in why
    assert (up.told, down.told) == ([("new", PROBLEM.key)], [])
    down.down = None
    assert notifier.update(found(PROBLEM), NOW) == []
    assert (up.told, down.told) == ([], [("new", PROBLEM.key)])
    down.down = "away again"
    notifier.update(found(recovered=[PROBLEM.key]), NOW)
    assert (up.told, down.told) == ([("recovered", PROBLEM.key)], [])
    down.down = None
    notifier.update(found(), NOW)
    assert (up.told, down.told) == ([], [("recovered", PROBLEM.key)])
    assert notifier.state().alerts == {}


def test_what_was_over_before_a_channel_heard_of_it_is_not_told_to_it(tmp_path: Path) -> None:
    down = Recorder()
    down.down = "away"
    notifier = notifier_of(tmp_path, down)
    notifier.update(found(PROBLEM), NOW)
    notifier.update(found(recovered=[PROBLEM.key]), NOW)
    down.down = None
    notifier.update(found(), NOW)
    assert down.told == []
    assert notifier.state().alerts == {}


def test_a_look_that_fails_leaves_the_book_as_it_was(tmp_path: Path) -> None:
    notifier = notifier_of(tmp_path, Recorder())
    notifier.update(found(PROBLEM), NOW)
    before = (tmp_path / "alerts.json").read_bytes()

    def broken(book: Any) -> Findings:
        book.marks["runs"] = NOW
        raise RuntimeError("the database is away")

    with pytest.raises(RuntimeError):
        notifier.update(broken, NOW)
    assert (tmp_path / "alerts.json").read_bytes() == before
    (tmp_path / "alerts.json").write_text("not json")
    assert notifier.state().alerts == {}


@pytest.mark.parametrize(
    "damage",
    [
        ("+00:00", ""),
        ("Z", ""),
        ('"alerts"', '"alerts": [], "alerts"'),
        ('"told":{', '"told":{"x":"2026-01-01T00:00:00",'),
    ],
)
def test_a_damaged_book_begins_anew(tmp_path: Path, damage: tuple[str, str]) -> None:
    channel = Recorder()
    notifier = notifier_of(tmp_path, channel)
    notifier.update(found(PROBLEM), NOW)
    path = tmp_path / "alerts.json"
    path.write_text(path.read_text().replace(*damage))
    notifier.update(found(PROBLEM), NOW + timedelta(hours=1))
    assert notifier.state().open[PROBLEM.key].began.tzinfo is not None


def test_a_clock_that_was_wrong_does_not_silence_reminders(tmp_path: Path) -> None:
    channel = Recorder()
    notifier = notifier_of(tmp_path, channel)
    notifier.update(found(replace(PROBLEM, began=NOW + timedelta(days=700))), NOW + timedelta(days=700))
    channel.messages.clear()
    notifier.update(found(PROBLEM), NOW)
    notifier.update(found(PROBLEM), NOW + timedelta(days=2))
    assert channel.told == [("reminder", PROBLEM.key)]
    assert notifier.state().open[PROBLEM.key].began <= NOW


def test_a_book_that_cannot_be_kept_tells_nobody_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    channel = Recorder()
    monkeypatch.setattr(import_module("headrace.alerts.notifier"), "write_atomically", no_room)
    with pytest.raises(Fatal, match=r"alerts.json cannot be written.*no space left"):
        notifier_of(tmp_path, channel).update(found(PROBLEM), NOW)
    assert channel.told == []


def test_many_at_once_are_one_message(tmp_path: Path) -> None:
    channel = Recorder()
    many = [replace(PROBLEM, key=f"check/{n}") for n in range(6)]
    notifier_of(tmp_path, channel).update(found(*many[:5]), NOW)
    assert [len(message) for message in channel.messages] == [1] * 5
    channel.messages.clear()
    notifier_of(tmp_path / "other", channel).update(found(*many), NOW)
    assert [len(message) for message in channel.messages] == [6]


def test_an_alert_can_be_dismissed(tmp_path: Path) -> None:
    notifier = notifier_of(tmp_path, Recorder())
    notifier.update(found(PROBLEM), NOW)
    with pytest.raises(Fatal, match=r"no alert 'run/x'.*reject_rate"):
        notifier.dismiss("run/x")
    notifier.dismiss(PROBLEM.key)
    assert notifier.state().alerts == {}


def test_the_log_says_it_at_the_level_of_its_severity(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "headrace"):
        assert Log().send([Notification("new", PROBLEM, NOW), Notification("new", RUN, NOW)]) is None
    assert [r.levelno for r in caplog.records] == [logging.WARNING, logging.ERROR]
    assert "owner: team:analytics" in caplog.text
    assert PROBLEM.link in caplog.text


def test_a_webhook_gets_the_alert_with_its_fields(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/hook", method="POST").respond_with_data("ok")
    hook = Address(1, f"json://u:{SECRET}@{httpserver.host}:{httpserver.port}/hook")
    assert hook.send([Notification("new", PROBLEM, NOW)]) is None
    assert hook.send([Notification("recovered", RUN, NOW)]) is None
    assert hook.send([Notification("new", PROBLEM, NOW), Notification("new", RUN, NOW)]) is None
    new, over, both = (request.get_json() for request, _ in httpserver.log)
    assert (new["title"], new["type"]) == ("Headrace: check reject_rate of lake/events failed", "warning")
    assert PROBLEM.reason in new["message"]
    told = {k: new[k] for k in ("kind", "what", "stream", "asset", "owner", "severity", "began", "link")}
    assert told == {
        "kind": "new", "what": "check", "stream": "events", "asset": "lake/events", "owner": "team:analytics",
        "severity": "warning", "began": "2026-03-10 11:55:00 UTC", "link": PROBLEM.link,
    }  # fmt: skip
    assert (over["kind"], over["type"], over["ended"]) == ("recovered", "success", "2026-03-10 12:00:00 UTC")
    assert (both["title"], both["type"]) == ("Headrace: 2 alerts", "failure")
    assert RUN.title in both["message"]


def test_slack_gets_the_alert(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from apprise.plugins.slack import NotifySlack

    monkeypatch.setattr(NotifySlack, "webhook_url", httpserver.url_for("/services"))
    path = "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    httpserver.expect_request(path, method="POST").respond_with_data("ok")
    for url in (f"https://hooks.slack.com{path}", f"slack://{path.removeprefix('/services/')}/#data"):
        assert Address(1, url).send([Notification("new", PROBLEM, NOW)]) is None
    first, second = (request.get_data(as_text=True) for request, _ in httpserver.log)
    assert PROBLEM.reason in first.replace("\\n", "\n")
    assert "team:analytics" in first
    assert '"#data"' in second


@pytest.fixture
def smtp(tmp_path: Path) -> Iterator[str]:
    """A mail server with its letters in ``mail``; yields its address."""
    port = pick_port(0, {0})
    controller = Controller(
        Mailbox(str(tmp_path / "mail")), hostname=LOOPBACK, port=port, auth_require_tls=False
    )
    controller.start()
    try:
        yield f"{LOOPBACK}:{port}"
    finally:
        controller.stop()


def test_e_mail_gets_the_alert(smtp: str, tmp_path: Path) -> None:
    url = f"mailto://{smtp}?from=headrace@example.org&to=ada@example.org,bob@example.org"
    assert Address(1, url).send([Notification("new", RUN, NOW)]) is None
    letters = [email.message_from_bytes(file.read_bytes()) for file in (tmp_path / "mail" / "new").iterdir()]
    assert sorted(str(one["X-RcptTo"]) for one in letters) == ["ada@example.org", "bob@example.org"]
    letter = letters[0]
    assert letter["Subject"] == "Headrace: run of ingest_events failed"
    text = "".join(str(part.get_payload(decode=True)) for part in letter.walk() if not part.is_multipart())
    assert RUN.reason in text
    assert "owner: team:analytics" in text


def test_a_webhook_that_fails_gets_it_at_the_next_time(httpserver: HTTPServer, tmp_path: Path) -> None:
    answers = [500, 404, 200]
    httpserver.expect_request("/hook").respond_with_handler(lambda _: Response("", answers.pop(0)))
    well = Recorder()
    hook = Address(2, f"json://{httpserver.host}:{httpserver.port}/hook?:token={SECRET}")
    for _ in range(2):
        [why] = notifier_of(tmp_path, hook, well).update(found(PROBLEM), NOW)
        assert "channel 2 (json) did not take" in why
        assert SECRET not in why
    assert notifier_of(tmp_path, hook, well).update(found(PROBLEM), NOW) == []
    assert notifier_of(tmp_path, hook, well).update(found(PROBLEM), NOW) == []
    assert (len(httpserver.log), well.told) == (3, [("new", PROBLEM.key)])


@pytest.mark.parametrize(
    "url",
    [
        f"slack://{SECRET}",
        f"smoke://{SECRET}",
        f"https://example.org/{SECRET}",
        f"mailto://me:{SECRET}@",
        SECRET,
    ],
)
def test_an_address_that_is_none_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    monkeypatch.setenv("HEADRACE_ALERTS", f"json://127.0.0.1/hook {url}")
    with pytest.raises(Fatal) as raised:
        verify(load_settings())
    said = str(raised.value)
    assert said.startswith("HEADRACE_ALERTS: channel 2 (")
    assert "\n" not in said
    assert SECRET not in said + caplog.text + repr(load_settings())


def test_a_channel_that_is_away_does_not_give_its_secrets_away(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    port = 1  # nobody listens there
    urls = [
        f"json://127.0.0.1:{port}/{SECRET}?:token={SECRET}",
        f"mailto://me:{SECRET}@127.0.0.1:{port}?from=a@example.org&to=b@example.org",
    ]
    notifier = notifier_of(tmp_path, *(Address(n, url) for n, url in enumerate(urls, 1)))
    with caplog.at_level(logging.DEBUG, "headrace"):
        failures = notifier.update(found(PROBLEM), NOW)
    assert len(failures) == 2
    assert SECRET not in " ".join(failures) + caplog.text + (tmp_path / "alerts.json").read_text()
    assert (tmp_path / "alerts.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("form", ["{0} {1}", '["{0}", "{1}"]'])
def test_the_channels_are_a_list_in_either_form(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    urls = ("json://127.0.0.1/a", "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ")
    monkeypatch.setenv("HEADRACE_ALERTS", form.format(*urls))
    settings = load_settings()
    assert [one.label for one in addresses(settings)] == ["channel 1 (json)", "channel 2 (slack)"]
    verify(settings)
    assert addresses(load_settings(alerts=urls[::-1]))[0].id == addresses(settings)[1].id


def test_the_addresses_of_the_documentation_are_addresses() -> None:
    text = (
        (Path(__file__).parents[2] / "docs" / "operations.md")
        .read_text()
        .partition("| channel | address |")[2]
    )
    table = text.partition("\n\n")[0]
    spans = [one for one in re.findall(r"`(\w+://[^`]+)`", table) if not one.endswith(("...", "://"))]
    spans += re.findall(r"`(https://hooks[^`]+)`", table)
    assert len(spans) == 5
    for n, span in enumerate(spans):
        tokens = iter(("T1JJ3T3L2", "A1BRTD4JD", "TIiajkdnlazkcOXrIdevi7FQ"))
        Address(n, re.sub(r"[TB]?\.\.\.", lambda _: next(tokens), span)).verify()  # noqa: B023


def test_a_broken_list_does_not_show_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_ALERTS", f'["json://{SECRET}"')
    with pytest.raises(Fatal, match=r"HEADRACE_ALERTS=\(hidden\) is not valid") as raised:
        load_settings()
    assert SECRET not in str(raised.value)


def test_the_command_lists_tries_and_dismisses(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request("/hook").respond_with_data("ok")
    httpserver.expect_request("/down").respond_with_data("", 503)
    hook = f"json://{httpserver.host}:{httpserver.port}"

    def headrace(*words: str, alerts: str = "") -> Result:
        settings.cache_clear()
        with exported({"HEADRACE_HOME": str(tmp_path), "HEADRACE_ALERTS": alerts}):
            return CliRunner().invoke(app, ["alerts", *words])

    try:
        assert headrace("list").stdout == "no alert is open\n"
        assert headrace("test", alerts=f"{hook}/hook").exit_code == 0
        done = headrace("test", "--json", alerts=f"{hook}/hook {hook}/down")
        assert done.exit_code == 1
        said = json.loads(done.stdout)
        assert said["channel 1 (json)"] is None
        assert "503" in said["channel 2 (json)"]
        notifier_of(tmp_path, Recorder()).update(found(PROBLEM), NOW)
        assert PROBLEM.title in headrace("list").stdout
        [shown] = json.loads(headrace("list", "--json").stdout)
        assert (shown["key"], shown["owners"]) == (PROBLEM.key, ["team:analytics"])
        assert headrace("dismiss", PROBLEM.key).exit_code == 0
        assert isinstance(headrace("dismiss", PROBLEM.key).exception, Fatal)
        assert isinstance(headrace("test").exception, Fatal)
    finally:
        settings.cache_clear()
