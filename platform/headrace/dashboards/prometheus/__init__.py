"""Recording and alert rules for Prometheus."""

from pathlib import Path
from typing import Any

#: The rules of an installation, as Prometheus reads them.
RULES = Path(__file__).with_name("rules.yml")


def recorded() -> set[str]:
    """Return the names that the rules record."""
    import yaml  # type: ignore[import-untyped]

    groups: Any = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}
