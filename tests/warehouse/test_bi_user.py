"""The statements of the read-only user."""

from __future__ import annotations

from hashlib import sha256

from headrace.warehouse.bi_user import statements
from headrace.warehouse.cluster import Placement


def test_it_reads_the_marts_but_what_is_hidden() -> None:
    made = statements("headrace_bi", "s3cret", "analytics", ["user_days", "a`b"])
    digest = sha256(b"s3cret").hexdigest()
    assert made == [
        f"CREATE USER IF NOT EXISTS `headrace_bi` IDENTIFIED WITH sha256_hash BY '{digest}' SETTINGS readonly = 2",
        f"ALTER USER `headrace_bi` IDENTIFIED WITH sha256_hash BY '{digest}' SETTINGS readonly = 2",
        "REVOKE ALL ON *.* FROM `headrace_bi`",
        "GRANT SELECT ON `analytics`.* TO `headrace_bi`",
        "REVOKE SELECT ON `analytics`.`a\\`b` FROM `headrace_bi`",
        "REVOKE SELECT ON `analytics`.`user_days` FROM `headrace_bi`",
    ]
    assert statements("bi", "x", "marts", beside=[("marts_speed", "states")])[-1] == (
        "GRANT SELECT ON `marts_speed`.`states` TO `bi`"
    )
    assert not any("s3cret" in sql for sql in made)


def test_on_a_cluster_it_is_made_everywhere() -> None:
    made = statements("bi", "x", "analytics", ["h"], Placement("prod"))
    assert all("ON CLUSTER `prod`" in sql for sql in made)
