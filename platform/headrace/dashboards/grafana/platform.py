"""The dashboard of the platform itself, from what ``telemetry`` measures."""

from __future__ import annotations

from headrace.dashboards.grafana.spec import Board, Measured, Number, Query, Row

_COUNT, _ROWS, _SECONDS, _BYTES, _PER_SECOND, _SHARE = "short", "short", "s", "bytes", "cps", "percentunit"

PLATFORM = Board(
    "headrace-platform",
    "Headrace: platform",
    "What waits, what landed, was published and built, and how the services are.",
    (
        Row(
            "At a glance",
            (
                Measured(
                    "Waiting messages",
                    "Messages of all sources that have not landed.",
                    _COUNT,
                    (Query("sum(headrace_source_waiting_messages)", "waiting"),),
                    "number",
                    4,
                ),
                Measured(
                    "Last landed",
                    "Age of what landed last, in the stream that has waited longest.",
                    _SECONDS,
                    (Query("max(time() - headrace_last_landed_timestamp_seconds)", "age"),),
                    "number",
                    4,
                ),
                Measured(
                    "Unpublished versions",
                    "Lake versions that the warehouse lacks.",
                    _COUNT,
                    (Query("sum(headrace_unpublished_versions)", "versions"),),
                    "number",
                    4,
                ),
                Measured(
                    "Stale days",
                    "Days whose models are older than their rows.",
                    _COUNT,
                    (Query("sum(headrace_stale_days)", "days"),),
                    "number",
                    4,
                ),
                Measured(
                    "Failed checks",
                    "Asset checks whose last evaluation failed.",
                    _COUNT,
                    (Query('sum by (severity) (headrace_checks{outcome="failed"})', "{{severity}}"),),
                    "number",
                    4,
                ),
                Measured(
                    "Parts down",
                    "Parts of the installation that cannot be measured.",
                    _COUNT,
                    (Query("sum(headrace_exporter_part_up == bool 0)", "down"),),
                    "number",
                    4,
                ),
            ),
        ),
        Row(
            "Landing",
            (
                Measured(
                    "Lag by topic",
                    "Messages of each topic that have not landed, by the positions in the lake's log.",
                    _COUNT,
                    (Query("sum by (topic) (kafka_consumergroup_lag_sum)", "{{topic}}"),),
                ),
                Measured(
                    "Waiting by source",
                    "Messages of each source that have not landed.",
                    _COUNT,
                    (Query("headrace_source_waiting_messages", "{{stream}} {{source}}"),),
                ),
                Measured(
                    "Rows landed",
                    "Rows that come into the lake each second, good and rejected.",
                    _PER_SECOND,
                    (
                        Query(
                            "sum by (stream, kind) (rate(headrace_landed_rows_total[$__rate_interval]))",
                            "{{stream}} {{kind}}",
                        ),
                    ),
                ),
                Measured(
                    "Rejected share",
                    "Share of the newest rows that was rejected and not repaired.",
                    _SHARE,
                    (
                        Query(
                            'sum by (stream) (headrace_arrived_rows{window="recent", kind="rejected"}) / '
                            "clamp_min(sum by (stream) (headrace_arrived_rows{"
                            'window="recent", kind=~"good|rejected"}), 1)',
                            "{{stream}}",
                        ),
                    ),
                ),
                Measured(
                    "Age of the last commit",
                    "Time since the last commit to the lake table of good rows.",
                    _SECONDS,
                    (
                        Query(
                            'time() - headrace_lake_last_commit_timestamp_seconds{kind="good"}', "{{stream}}"
                        ),
                    ),
                ),
                Measured(
                    "Acknowledged over HTTP, not in the lake",
                    "Entries of the collector's log that the lake lacks.",
                    _COUNT,
                    (Query("headrace_collector_held_requests", "{{stream}}"),),
                ),
            ),
        ),
        Row(
            "Quality, day by day",
            (
                Number("landed_rows", "day", ("stream",), "bars", 6, since="30d"),
                Number("rejections", "day", ("reason",), "bars", 6, since="30d"),
                Number("late_share", "day", ("stream",), span=6, since="30d"),
                Number("repeated_rows", "day", ("stream",), "bars", 6, since="30d"),
            ),
        ),
        Row(
            "Lake and warehouse",
            (
                Measured(
                    "Bytes of the lake",
                    "Bytes of the newest version's files of each table.",
                    _BYTES,
                    (Query("headrace_lake_bytes", "{{table}}"),),
                ),
                Measured(
                    "Files of the lake",
                    "Files of the newest version of each table.",
                    _COUNT,
                    (Query("headrace_lake_files", "{{table}}"),),
                ),
                Measured(
                    "Rows in lake and warehouse",
                    "Rows of the good tables in the lake, and of the raw tables; the difference is on its way.",
                    _ROWS,
                    (
                        Query('headrace_lake_rows{kind="good"}', "lake {{table}}"),
                        Query("headrace_warehouse_rows", "raw {{table}}"),
                    ),
                ),
                Measured(
                    "Unpublished versions by stream",
                    "Lake versions that the warehouse lacks.",
                    _COUNT,
                    (Query("headrace_unpublished_versions", "{{stream}}"),),
                ),
                Measured(
                    "Models behind",
                    "Time for which the oldest stale day has been waiting for its models.",
                    _SECONDS,
                    (Query("time() - headrace_stale_since_timestamp_seconds", "{{stream}}"),),
                ),
                Measured(
                    "Age of the last build",
                    "Time since models were last built.",
                    _SECONDS,
                    (Query("time() - headrace_last_build_timestamp_seconds", "{{stream}}"),),
                ),
            ),
        ),
        Row(
            "ClickHouse",
            (
                Measured(
                    "Queries",
                    "Queries each second, by kind.",
                    _PER_SECOND,
                    (Query("rate(headrace_clickhouse_queries_total[$__rate_interval])", "{{kind}}"),),
                ),
                Measured(
                    "Failed queries",
                    "Queries each second that failed, by kind.",
                    _PER_SECOND,
                    (Query("rate(headrace_clickhouse_failed_queries_total[$__rate_interval])", "{{kind}}"),),
                ),
                Measured(
                    "Errors",
                    "Errors each second, by name, the ten most frequent.",
                    _PER_SECOND,
                    (
                        Query(
                            "topk(10, rate(headrace_clickhouse_errors_total[$__rate_interval]))", "{{error}}"
                        ),
                    ),
                ),
                Measured(
                    "Parts in a partition",
                    "Active parts of the fullest partition, the ten worst tables; inserts are delayed from 1,000.",
                    _COUNT,
                    (Query("topk(10, headrace_clickhouse_partition_parts)", "{{database}}.{{table}}"),),
                ),
                Measured(
                    "Bytes by table",
                    "Bytes of a table's active parts on disk, the ten largest.",
                    _BYTES,
                    (Query("topk(10, headrace_clickhouse_bytes)", "{{database}}.{{table}}"),),
                ),
                Measured(
                    "Running queries",
                    "Queries that run at the moment.",
                    _COUNT,
                    (Query("headrace_clickhouse_running_queries", "running"),),
                ),
            ),
        ),
        Row(
            "Runs and services",
            (
                Measured(
                    "Runs",
                    "Runs that are queued, starting or running, by job.",
                    _COUNT,
                    (
                        Query(
                            'sum by (job_name, state) (headrace_runs{state!~"success|failure|canceled"})',
                            "{{job_name}} {{state}}",
                        ),
                    ),
                ),
                Measured(
                    "Oldest queued run",
                    "Time for which the oldest queued run has been waiting.",
                    _SECONDS,
                    (Query("time() - headrace_runs_oldest_queued_timestamp_seconds", "queued"),),
                ),
                Measured(
                    "Daemons",
                    "Time since the last sign of life of each of Dagster's daemons.",
                    _SECONDS,
                    (Query("time() - headrace_daemon_heartbeat_timestamp_seconds", "{{daemon}}"),),
                ),
                Measured(
                    "Jobs that fail",
                    "Failures in a row of jobs that sensors launch.",
                    _COUNT,
                    (Query("headrace_job_failures", "{{job_name}}"),),
                    span=6,
                ),
                Measured(
                    "Services left alone",
                    "1 while a service is left alone after failures.",
                    _COUNT,
                    (Query("headrace_circuit_open", "{{service}}"),),
                    span=6,
                ),
                Measured(
                    "Failed checks by name",
                    "Asset checks whose last evaluation failed; headrace status says why.",
                    _COUNT,
                    (Query("headrace_check_failed", "{{check}} of {{asset}}"),),
                    "table",
                    6,
                ),
                Measured(
                    "Age of measurements",
                    "Age of the oldest measurement of each part.",
                    _SECONDS,
                    (Query("max by (part) (headrace_exporter_part_age_seconds)", "{{part}}"),),
                    span=6,
                ),
            ),
        ),
    ),
    since="now-1h",
    tags=("platform",),
)
