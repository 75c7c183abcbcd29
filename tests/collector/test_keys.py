"""Write keys: made, found, rotated and revoked; only digests are kept."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.collector.keys import Keys, first_key
from headrace.core.errors import Fatal

NOW = datetime.now(UTC)


def test_a_key_is_found_by_its_secret_alone(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    secret = keys.create("shop", streams=["events"], origins=["https://shop.example"], rate=5)
    found = keys.find(secret, NOW)
    assert found is not None and found.name == "shop" and found.rate == 5
    assert found.may_send_to("events") and not found.may_send_to("metrics")
    assert found.may_come_from("https://shop.example") and not found.may_come_from("https://other.example")
    for other in ("", secret[:-1], secret + "a", secret.upper(), "shop"):
        assert keys.find(other, NOW) is None


def test_no_secret_is_in_the_file_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = Keys(path)
    secrets = [keys.create("a"), keys.create("b"), keys.rotate("a", timedelta(hours=1))]
    text = path.read_text()
    assert all(secret[7:] not in text for secret in secrets)
    assert path.stat().st_mode & 0o077 == 0


def test_an_origin_that_no_browser_would_send_makes_no_key(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    with pytest.raises(Fatal, match=r"'shop.example' is no web origin: .*https://shop.example"):
        keys.create("shop", origins=["shop.example"])
    assert keys.all() == []
    found = keys.find(keys.create("shop", origins=["https://Shop.example:443/"]), NOW)
    assert found is not None and found.may_come_from("https://shop.example")


def test_a_name_is_given_once_even_after_it_was_revoked(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    secret = keys.create("a")
    with pytest.raises(Fatal, match="already"):
        keys.create("a")
    keys.revoke("a")
    assert keys.find(secret, NOW) is None
    with pytest.raises(Fatal, match="already"):
        keys.create("a")
    with pytest.raises(Fatal, match="was revoked"):
        keys.revoke("a")
    with pytest.raises(Fatal, match="was revoked"):
        keys.rotate("a", timedelta(0))
    with pytest.raises(Fatal, match="there is no key 'z'; there are a"):
        keys.revoke("z")


def test_a_rotated_key_has_two_secrets_for_a_while(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys.json")
    before = keys.create("a")
    after = keys.rotate("a", timedelta(hours=1))
    assert keys.find(before, NOW) is not None and keys.find(after, NOW) is not None
    later = NOW + timedelta(hours=2)
    assert keys.find(before, later) is None and keys.find(after, later) is not None


def test_what_another_process_changes_is_seen_after_refresh(tmp_path: Path) -> None:
    mine, other = Keys(tmp_path / "keys.json"), Keys(tmp_path / "keys.json")
    secret = other.create("a")
    assert mine.find(secret, NOW) is None
    mine.refresh()
    assert mine.find(secret, NOW) is not None
    other.revoke("a")
    mine.refresh()
    assert mine.find(secret, NOW) is None


def test_keys_made_at_once_are_all_kept(tmp_path: Path) -> None:
    made: list[str] = []

    def make(number: int) -> None:
        made.append(Keys(tmp_path / "keys.json").create(f"k{number}"))

    threads = [threading.Thread(target=make, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = Keys(tmp_path / "keys.json")
    assert len(keys.all()) == 8 and all(keys.find(secret, NOW) for secret in made)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"keys": [{}]}', '{"keys": 5}'])
def test_a_damaged_file_is_named_and_the_keys_of_before_remain(tmp_path: Path, text: str) -> None:
    keys = Keys(tmp_path / "keys.json")
    secret = keys.create("a")
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(Fatal, match=r"keys\.json is damaged"):
        keys.refresh()
    assert keys.find(secret, NOW) is not None
    with pytest.raises(Fatal, match=r"keys\.json is damaged"):
        Keys(tmp_path / "keys.json")


def test_the_first_key_is_made_once_and_read_by_its_owner_alone(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "c" / "keys.json")
    path = first_key(keys, tmp_path / "c" / "default.key")
    assert path is not None and path.stat().st_mode & 0o077 == 0
    assert keys.find(path.read_text().strip(), NOW) is not None
    assert first_key(keys, tmp_path / "c" / "default.key") is None
    assert json.loads((tmp_path / "c" / "keys.json").read_text())["version"] == 1
