-- What has been published and what has been built from it: the two tables that make publishing exactly once and
-- rebuilding of models cheap.
--
-- Both are tiny (a row per lake version, a row per build), read whole by table and lake, and never expire; hence
-- no partitions. A version is recorded again after a crash: ReplacingMergeTree keeps the last row, and readers ask
-- for max(version) or distinct days, so they need no FINAL.
--
-- The ALTERs bring tables of Headrace before its first migration up to the same.

CREATE TABLE IF NOT EXISTS {{raw}}._publications
(
    table LowCardinality(String) COMMENT 'raw table',
    lake_id String COMMENT 'id of the lake table',
    version Int64 COMMENT 'lake version that is wholly in the raw table',
    rows UInt64 COMMENT 'rows that it added',
    days Array(Date) COMMENT 'partitions that it touched',
    landed_days Array(Date) COMMENT 'UTC days of _ingested_at of the rows that it added',
    published_at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = ReplacingMergeTree(published_at)
ORDER BY (table, lake_id, version)
COMMENT 'Lake versions that are in the warehouse; written after the rows';

ALTER TABLE {{raw}}._publications
    ADD COLUMN IF NOT EXISTS landed_days Array(Date)
    COMMENT 'UTC days of _ingested_at of the rows that it added' AFTER days;

CREATE TABLE IF NOT EXISTS {{raw}}._refreshes
(
    table LowCardinality(String) COMMENT 'raw table that the models read',
    lake_id String COMMENT 'id of the lake table',
    version Int64 COMMENT 'published lake version when the build began',
    days Array(Date) COMMENT 'days whose models were built',
    began_at DateTime64(6, 'UTC') COMMENT 'when the build began to read',
    refreshed_at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = MergeTree
ORDER BY (table, lake_id, version)
COMMENT 'Days whose dbt models were built, and from which lake version';

ALTER TABLE {{raw}}._refreshes
    ADD COLUMN IF NOT EXISTS began_at DateTime64(6, 'UTC')
    COMMENT 'when the build began to read' AFTER days;
