"""Recording and alert rules for Prometheus."""

from pathlib import Path

#: The rules of an installation, as Prometheus reads them.
RULES = Path(__file__).with_name("rules.yml")
