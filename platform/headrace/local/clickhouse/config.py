"""Write the engine's configuration: what clients may do, and how much of the machine they may use.

Every connection to the engine runs as its one user, who may take two roles: the owner's, and the reader's for BI tools.
Their grants bind all clients. They cover tables, engines and sources; :mod:`.access` and :mod:`.sandbox` cover what the
engine has no grant for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

GIB = 1 << 30

#: Sources of data outside the server that an operator can open with ``--grant``.
SOURCES = ("S3", "URL", "REMOTE", "AZURE", "KAFKA", "MYSQL", "POSTGRES", "MONGO", "REDIS")

_RIGHTS = """
    SELECT, INSERT, ALTER, DROP, UNDROP TABLE, TRUNCATE, OPTIMIZE, CHECK, KILL QUERY, dictGet,
    CREATE DATABASE, CREATE TABLE, CREATE VIEW, CREATE DICTIONARY, CREATE FUNCTION, DROP FUNCTION,
    CREATE TEMPORARY TABLE, CREATE ARBITRARY TEMPORARY TABLE,
    SHOW DATABASES, SHOW TABLES, SHOW COLUMNS, SHOW DICTIONARIES, displaySecretsInShowAndSelect,
    SYSTEM MERGES, SYSTEM TTL MERGES, SYSTEM VIEWS, SYSTEM RELOAD DICTIONARY,
    SYSTEM FLUSH LOGS, SYSTEM DROP CACHE
"""
_GRANTS = (
    f"GRANT {' '.join(_RIGHTS.split())} ON *.*",
    # The engine's own ``default`` shows the files of the working directory as tables.
    "REVOKE ALL ON `default`.*",
)

#: Roles of the engine's one user.
OWNER, READER = "owner", "reader"

#: Settings that name a host file, hold SQL that the access scan does not see, or lift a restriction.
_FIXED = (
    *("format_schema", "output_format_schema", "format_template_row", "format_template_resultset"),
    *("additional_table_filters", "additional_result_filter", "rename_files_after_processing"),
    *("allow_introspection_functions", "allow_experimental_eval_table_function", "allow_ddl"),
    *("default_table_engine", "default_temporary_table_engine", "max_memory_usage"),
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the reader may read.

    Attributes:
        database: Every table and view of this database, also those that come later.
        hidden: Names there that it neither reads nor sees.
        beside: Tables and views of other databases, each with its database.
    """

    database: str
    hidden: tuple[str, ...] = ()
    beside: tuple[tuple[str, str], ...] = ()

    def grants(self) -> tuple[str, ...]:
        """Return the statements of its role."""
        beside = (f"GRANT SELECT ON `{database}`.`{name}`" for database, name in self.beside)
        hidden = (f"REVOKE SELECT ON `{self.database}`.`{name}`" for name in self.hidden)
        return (f"GRANT SELECT ON `{self.database}`.*", *hidden, *beside)


@dataclass(frozen=True, slots=True)
class Limits:
    """Resources that the engine may use.

    Attributes:
        server_bytes: Memory of all queries, merges and caches together.
        query_bytes: Memory of one query. Aggregations spill to disk at half of it, sorts at a quarter, shared by the
            threads.
        threads: Threads of one query.
    """

    server_bytes: int
    query_bytes: int
    threads: int

    @classmethod
    def of_machine(cls, memory_bytes: int, cores: int) -> Limits:
        """Take half of the machine's memory, at most 4 GiB. The platform around the engine needs the rest."""
        server = max(GIB, min(memory_bytes // 2, 4 * GIB))
        return cls(server, server * 3 // 4, max(1, min(cores, 8)))


def write(
    directory: Path,
    data: Path,
    limits: Limits,
    sources: tuple[str, ...] = (),
    reading: Reading | None = None,
) -> Path:
    """Write ``config.xml`` and ``users.xml`` into ``directory``.

    Args:
        directory: Folder of the two files.
        data: The engine's data directory.
        limits: Memory and threads.
        sources: Kinds of outside sources that clients may use, of :data:`SOURCES`.
        reading: What the reader may read; None if there is none.

    Returns:
        Path of ``config.xml``.
    """
    users = directory / "users.xml"
    users.write_text(_users(limits, sources, reading), encoding="utf-8")
    config = directory / "config.xml"
    config.write_text(_config(users, data, limits), encoding="utf-8")
    return config


def _config(users: Path, data: Path, limits: Limits) -> str:
    """Make the server's own settings.

    Inserted parts are synced before the answer: a recorded publication must not outlive its rows in a power cut.
    Merged parts are not synced, because their source parts stay for eight minutes.
    """
    inside = escape(str(data))
    return f"""<clickhouse>
  <user_directories><users_xml><path>{escape(str(users))}</path></users_xml></user_directories>
  <access_control_improvements>
    <table_engines_require_grant>true</table_engines_require_grant>
  </access_control_improvements>
  <tmp_path>{inside}/tmp/</tmp_path>
  <user_files_path>{inside}/user_files/</user_files_path>
  <format_schema_path>{inside}/format_schemas/</format_schema_path>
  <user_scripts_path>{inside}/user_scripts/</user_scripts_path>
  <max_server_memory_usage>{limits.server_bytes}</max_server_memory_usage>
  <mark_cache_size>{limits.server_bytes // 32}</mark_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size>
  <background_pool_size>{max(2, limits.threads)}</background_pool_size>
  <background_merges_mutations_concurrency_ratio>2</background_merges_mutations_concurrency_ratio>
  <background_fetches_pool_size>1</background_fetches_pool_size>
  <background_move_pool_size>1</background_move_pool_size>
  <background_common_pool_size>2</background_common_pool_size>
  <background_schedule_pool_size>4</background_schedule_pool_size>
  <max_thread_pool_size>256</max_thread_pool_size>
  <merge_tree>
    <fsync_after_insert>1</fsync_after_insert>
    <fsync_part_directory>1</fsync_part_directory>
    <number_of_free_entries_in_pool_to_execute_mutation>1</number_of_free_entries_in_pool_to_execute_mutation>
    <number_of_free_entries_in_pool_to_lower_max_size_of_merge>1</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
    <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>1</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
  </merge_tree>
</clickhouse>
"""


def _users(limits: Limits, sources: tuple[str, ...], reading: Reading | None) -> str:
    """Make profile and grants.

    Everybody may read ``system.processes``, which shows the queries of the same user. Here that is everybody, so a
    filter shows them to the owner alone.

    Files are read in the thread that needs them. The default hands each read to a thread pool. On one machine, whose
    files are in the page cache, that doubles the cost of a scan over hundreds of small parts.
    """
    owner = (*_GRANTS, *(f"GRANT READ, WRITE ON {source}" for source in sources))
    roles = {OWNER: owner} | ({READER: reading.grants()} if reading else {})
    fixed = "\n".join(f"        <{name}><const/></{name}>" for name in _FIXED)
    return f"""<clickhouse>
  <profiles>
    <default>
      <max_memory_usage>{limits.query_bytes}</max_memory_usage>
      <max_bytes_before_external_group_by>{limits.query_bytes // 2}</max_bytes_before_external_group_by>
      <max_bytes_before_external_sort>{limits.query_bytes // (4 * limits.threads)}</max_bytes_before_external_sort>
      <max_threads>{limits.threads}</max_threads>
      <local_filesystem_read_method>pread</local_filesystem_read_method>
      <allow_introspection_functions>0</allow_introspection_functions>
      <implicit_select>0</implicit_select>
      <constraints>
{fixed}
        <max_threads><max>{limits.threads * 4}</max></max_threads>
      </constraints>
    </default>
  </profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <password></password>
      <profile>default</profile>
      <quota>default</quota>
      <grants>
        <query>GRANT {", ".join(roles)}</query>
      </grants>
      <databases>
        <system>
          <processes><filter>has(currentRoles(), '{OWNER}')</filter></processes>
        </system>
      </databases>
    </default>
  </users>
  <roles>
{"".join(map(_role, roles, roles.values()))}  </roles>
</clickhouse>
"""


def _role(name: str, grants: tuple[str, ...]) -> str:
    queries = "\n".join(f"        <query>{escape(grant)}</query>" for grant in grants)
    return f"    <{name}>\n      <grants>\n{queries}\n      </grants>\n    </{name}>\n"
