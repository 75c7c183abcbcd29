"""Load the one frozen ``Settings``; read nothing else from the environment anywhere.

Order of precedence: environment variables (``HEADRACE_*``), then ``stack.env`` of an embedded stack that runs in
``HEADRACE_HOME``, then ``headrace.toml`` of the user's project, then the defaults. Broker and warehouse have no
default: a service that happens to listen on this machine may belong to somebody else. Secrets come from the
environment and ``stack.env``, or from the secret store that a reference names (``headrace.config.secrets``);
``headrace.toml`` may hold references alone. Secrets are never printed.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from headrace.config import project as projects
from headrace.config import stack_env
from headrace.config.collector import CollectorSettings
from headrace.config.ingestion import IngestSettings
from headrace.config.metabase import MetabaseSettings
from headrace.config.operation import OperationSettings, listed
from headrace.config.project import Project
from headrace.config.secrets import is_reference, resolve
from headrace.config.services import ServiceSettings
from headrace.config.serving import ServingSettings
from headrace.config.shipped import DBT, checkout
from headrace.core.errors import Fatal, HeadraceError, NotSet
from headrace.core.locks import Patience

if TYPE_CHECKING:
    from headrace.core.guard import RetryPolicy

log = logging.getLogger(__name__)

PREFIX = "HEADRACE_"
_NOT_OURS = ("aws_", "dagster_home")  # settings whose variables have no prefix


class _StackEnv(PydanticBaseSettingsSource):
    """Settings source: the embedded stack that runs in ``HEADRACE_HOME``, if there is one."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # __call__ answers for all fields at once

    def __call__(self) -> dict[str, Any]:
        return {_field(name): line.value for name, line in _of_stack().items()}


class _ProjectFile(PydanticBaseSettingsSource):
    """Settings source: ``headrace.toml`` of the user's project, if there is one."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # __call__ answers for all fields at once

    def __call__(self) -> dict[str, Any]:
        before = self.current_state  # pydantic would merge tables of options with those of other sources
        return {name: one.value for name, one in _of_project().items() if name not in before}


def user_project() -> Project | None:
    """Find the user's project: ``HEADRACE_PROJECT_DIR``, or upwards from the working directory."""
    return projects.find(os.environ.get(f"{PREFIX}PROJECT_DIR"), _working_directory(), checkout())


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise Fatal("the working directory was removed; change to one that is there") from None


def _project_dir() -> Path:
    project = user_project()
    return project.root if project else checkout() or _working_directory()


def home_folder() -> Path:
    """Return the home even when other settings are invalid.

    It is ``HEADRACE_HOME``, or ``.headrace`` in the project or in the checkout, or else in the working directory.
    """
    if named := os.environ.get(f"{PREFIX}HOME"):
        return Path(named).expanduser().absolute()
    if project := user_project():
        return projects.home_in(project)
    if root := checkout():
        return root / ".headrace"
    home = _working_directory() / ".headrace"
    if not home.exists():
        _say_once(
            f"there is no {projects.FILE} here or above, so state goes to {home}; 'headrace init' makes a project"
        )
    return home


@cache
def _say_once(said: str) -> None:
    log.warning(said)


def _of_project() -> dict[str, projects.Entry]:
    """Return the settings of the user's project; empty if there is none.

    Raises:
        Fatal: ``headrace.toml`` is damaged, or holds an unknown name or a secret.
    """
    project = user_project()
    if project is None:
        return {}
    found = projects.entries(
        project, {name for name in Settings.model_fields if not name.startswith(_NOT_OURS)}
    )
    for name, one in found.items():
        if _is_secret(name) and (option := projects.secret_in(one.value, is_reference)) is not None:
            what = f"{option} of {name}" if option else name
            raise projects.refused(
                project,
                one.line,
                f"{what} is a secret, which does not belong into a repository: set {_variable(name)} in the"
                " environment, or refer to it here as file:/PATH, secretsmanager:NAME or ssm:/NAME",
            )
    return found


def _of_stack() -> dict[str, stack_env.Line]:
    """Return the variables of the stack that runs in ``HEADRACE_HOME``; empty if none runs."""
    return stack_env.variables(home_folder(), {_variable(name) for name in Settings.model_fields})


class Settings(
    CollectorSettings,
    ServingSettings,
    MetabaseSettings,
    OperationSettings,
    IngestSettings,
    ServiceSettings,
    BaseSettings,
):
    """All settings with their units. The environment variable of a setting is ``HEADRACE_`` plus its name."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", populate_by_name=True)

    home: Path = Field(default_factory=home_folder, description="folder for state, logs and the local lake")
    project_dir: Path = Field(
        default_factory=_project_dir, description="your project: the folder of headrace.toml"
    )

    pipelines: Path | None = Field(
        None, description="folder with your own *_pipeline.py files; default: pipelines/ of the project"
    )

    builtin_streams: Annotated[tuple[Literal["events", "metrics"], ...], NoDecode] = Field(
        ("events", "metrics"),
        description="Headrace's own streams to run, with their models; separated by spaces, or as a JSON list",
    )

    pipeline_seconds: float = Field(
        20.0, ge=0.1, le=600, description="a pipeline file that takes longer to load is skipped and reported"
    )

    @field_validator("home", "project_dir", "pipelines")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value and value.expanduser().absolute()

    @field_validator("builtin_streams", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return listed(value)

    @property
    def project(self) -> Project | None:
        """The user's project; None without ``headrace.toml``."""
        return projects.find(str(self.project_dir), self.project_dir)

    @property
    def kafka_servers(self) -> str:
        """Addresses of the brokers.

        Raises:
            NotSet: No address is set.
        """
        if not self.kafka_bootstrap_servers:
            raise self._not_set("HEADRACE_KAFKA_BOOTSTRAP_SERVERS")
        return self.kafka_bootstrap_servers

    @property
    def schema_registry(self) -> str:
        """Address of the schema registry.

        Raises:
            NotSet: No address is set.
        """
        if not self.schema_registry_url:
            raise NotSet(
                "no HEADRACE_SCHEMA_REGISTRY_URL is set, which topics of format 'confluent' need: set it to the"
                " registry's address, such as https://registry:8081"
            )
        return self.schema_registry_url

    @property
    def names_warehouse(self) -> bool:
        """Whether host or port of ClickHouse is set."""
        return not {"clickhouse_host", "clickhouse_port"}.isdisjoint(self.model_fields_set)

    def with_warehouse(self) -> Settings:
        """Return these settings after checking that they name a ClickHouse server.

        Raises:
            NotSet: They name none.
        """
        if not self.names_warehouse:
            raise self._not_set("HEADRACE_CLICKHOUSE_HOST")
        return self

    def _not_set(self, variable: str) -> NotSet:
        return NotSet(
            f"no stack runs in {self.home} and no {variable} is set: start one with 'headrace stack up', or set it"
        )

    @property
    def lock_patience(self) -> Patience:
        """How long to wait for other processes of this machine."""
        return Patience(self.lock_seconds, self.lock_max_seconds)

    @property
    def retry_policy(self) -> RetryPolicy:
        """How to call services that may not answer. The state of their circuits is below ``home``."""
        from headrace.core.guard import RetryPolicy

        return RetryPolicy(
            self.home / "breakers",
            self.retry_attempts,
            self.retry_max_seconds,
            self.breaker_failures,
            self.breaker_seconds,
        )

    @property
    def several_machines(self) -> bool:
        """Whether more than one machine may run this installation."""
        if self.machines:
            return self.machines == "several"
        return self.dagster_postgres is not None and "://" in self.lake

    @property
    def pipeline_folders(self) -> tuple[Path, ...]:
        """Folders with pipeline files, besides Headrace's own."""
        if self.pipelines:
            return (self.pipelines,)
        own = self.project.pipelines if self.project else None
        return (own,) if own and own.is_dir() else ()

    @property
    def lake(self) -> str:
        """URI of the lake's root, without a trailing slash."""
        return (self.lake_uri or str(self.home / "lake")).rstrip("/")

    @property
    def collector_folder(self) -> Path:
        """Folder of the collector's log and index."""
        return self.collector_log or self.home / "collector"

    @property
    def collector_keys_file(self) -> Path:
        """File of the write keys' digests."""
        return self.collector_keys or self.home / "collector" / "keys.json"

    @property
    def collector_first_key(self) -> Path:
        """File of the key that the collector makes where there is none yet."""
        return self.collector_folder / "default.key"

    @property
    def bi_password_file(self) -> Path:
        """File of the password that is made for the BI user where none is set."""
        return self.home / "bi.password"

    @property
    def archive_uri(self) -> str:
        """Folder or URI of the archive's root."""
        return self.archive or str(self.home / "archive")

    def export(self) -> None:
        """Export settings to this process's environment for dbt's profile and the AWS credential chain.

        Both read the environment alone, where settings from ``stack.env`` are missing.
        """
        os.environ |= {
            **self.exported_variables(),
            "HEADRACE_BUILTIN_STREAMS": " ".join(self.builtin_streams),
            # where dagster-dbt finds the parsed project
            "DBT_TARGET_PATH": str(self.home / "dbt" / "target"),
        }

    def exported_variables(self) -> dict[str, str]:
        """Return the variables that dbt's profile, AWS and child processes read, whose working directory is another."""
        found = _project_variables(self.project)
        if self.aws_access_key_id and self.aws_secret_access_key:
            found["AWS_ACCESS_KEY_ID"] = self.aws_access_key_id
            found["AWS_SECRET_ACCESS_KEY"] = self.aws_secret_access_key.get_secret_value()
        if self.names_warehouse:  # else child processes would take the defaults for settings
            found["HEADRACE_CLICKHOUSE_HOST"] = self.clickhouse_host
            found["HEADRACE_CLICKHOUSE_PORT"] = str(self.clickhouse_port)
        if self.project is not None or checkout() is None:
            found["HEADRACE_HOME"] = str(self.home)
        return found | {
            "HEADRACE_CLICKHOUSE_USER": self.clickhouse_user,
            "HEADRACE_CLICKHOUSE_PASSWORD": self.clickhouse_password.get_secret_value(),
            # dbt keeps variables of this name out of its logs, and does not parse again when they change
            "DBT_ENV_SECRET_CLICKHOUSE_PASSWORD": self.clickhouse_password.get_secret_value(),
            "HEADRACE_CLICKHOUSE_SECURE": str(self.clickhouse_secure).lower(),
            "HEADRACE_WAREHOUSE_CLUSTER": self.warehouse_cluster,
            "HEADRACE_RAW_DATABASE": self.raw_database,
            "HEADRACE_DBT_SCHEMA": self.dbt_schema,
            "HEADRACE_MODEL_QUERY_SECONDS": str(self.model_query_seconds),
        }

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the settings sources: arguments, environment, a running stack, then the user's project."""
        return init_settings, env_settings, _StackEnv(settings_cls), _ProjectFile(settings_cls)


class _WithoutStack(Settings):
    """The settings without those of a running stack."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: PydanticBaseSettingsSource, **named: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the settings sources: arguments, environment, then the user's project."""
        return named["init_settings"], named["env_settings"], _ProjectFile(settings_cls)


def load_settings(*, with_stack: bool = True, **overrides: Any) -> Settings:
    """Read the settings afresh.

    Args:
        with_stack: Use a running stack for variables that the environment does not set.
        overrides: Values that take precedence over all others.

    Raises:
        Fatal: A value is out of range or a ``HEADRACE_*`` name is unknown. The message names the variable, or file and
            line of ``headrace.toml``, the value and the expected values.
        Damaged: ``stack.env`` is damaged. The message names file and line.
    """
    _refuse_unknown(os.environ)
    _refuse_no_project(os.environ.get(f"{PREFIX}PROJECT_DIR"))
    return _with_secrets(_read(Settings if with_stack else _WithoutStack, overrides))


def _read(kind: type[Settings], overrides: dict[str, Any]) -> Settings:
    try:
        return kind(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        variable = _variable(name)
        value = "(hidden)" if _is_secret(name) else repr(first.get("input"))
        invalid = f"is not valid: {first['msg'].lower()}"
        if name not in overrides and variable not in os.environ:
            line = _of_stack().get(variable) if kind is Settings else None
            if line is not None:
                said = f"{variable}={value} {invalid}"
                raise stack_env.damaged(stack_env.path_in(home_folder()), line.number, said) from None
            project, entry = user_project(), _of_project().get(name)
            if project is not None and entry is not None:
                raise projects.refused(project, entry.line, f"{name} = {value} {invalid}") from None
        raise Fatal(f"{variable}={value} {invalid}") from None
    except HeadraceError:
        raise
    except Exception as error:  # pydantic-settings' own error for JSON that does not parse
        raise Fatal(f"the settings cannot be read: {error}") from error


@cache
def settings() -> Settings:
    """Return the settings of this process, read once."""
    return load_settings()


def adopt(environment: dict[str, str]) -> Settings:
    """Add variables to this process's environment, for itself and its children, and read the settings again."""
    os.environ |= environment
    settings.cache_clear()
    return settings()


@contextmanager
def exported(variables: Mapping[str, str]) -> Iterator[None]:
    """Export variables to this process's environment for the duration of the block, for children started in it."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def unchanged_environment() -> Iterator[None]:
    """Put this process's environment back to what it was after the block, whatever is exported in it."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ |= before


def batch_dagster_events() -> None:
    """Let Dagster in this process store events in batches. Dagster reads the batch size from the environment."""
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "500")


def child_environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment with ``extra`` on top, for a child process."""
    return {**os.environ, **_project_variables(user_project()), **(extra or {})}


def _project_variables(project: Project | None) -> dict[str, str]:
    return {f"{PREFIX}PROJECT_DIR": str(project.root)} if project else {}


def _variable(name: str) -> str:
    return name.upper() if name.startswith(_NOT_OURS) else PREFIX + name.upper()


def _field(variable: str) -> str:
    return variable.removeprefix(PREFIX).lower()


def _with_secrets(read: Settings) -> Settings:
    """Replace references to secrets with the secrets."""

    def resolved(name: str, value: Any) -> Any:
        if isinstance(value, SecretStr):
            return SecretStr(resolved(name, value.get_secret_value()))
        if isinstance(value, tuple):
            return tuple(resolved(name, one) for one in value)
        if isinstance(value, dict):
            return {key: resolved(name, one) for key, one in value.items()}
        if not isinstance(value, str) or not is_reference(value):
            return value
        try:
            return resolve(value, read.sqs_region)
        except Fatal as error:
            raise Fatal(f"{_variable(name)}: {error}") from None

    secret = {name: getattr(read, name) for name in Settings.model_fields if _is_secret(name)}
    found = {name: resolved(name, value) for name, value in secret.items()}
    return read.model_copy(update=found) if found != secret else read


def _refuse_no_project(named: str | None) -> None:
    """Refuse a ``HEADRACE_PROJECT_DIR`` that names nothing: all would go on without the project."""
    if named and user_project() is None and not (Path(named).expanduser() / DBT).is_dir():
        raise Fatal(
            f"{PREFIX}PROJECT_DIR={named} names no project: there is no {projects.FILE} in it; name the folder that has"
            " it, or unset the variable"
        )


def _is_secret(name: str) -> bool:
    """Tell whether a setting's value must not be shown."""
    known = Settings.model_fields.get(name)
    return known is not None and (not known.repr or "SecretStr" in str(known.annotation))


def _refuse_unknown(environment: os._Environ[str]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in environment:
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; see docs/operations.md for all of them"
            raise Fatal(f"{name} is not a setting of Headrace{hint}")
