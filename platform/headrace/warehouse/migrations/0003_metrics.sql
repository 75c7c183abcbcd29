-- The raw tables of the stream `metrics`. What 0002_events.sql says of partitions, codecs, LowCardinality, indexes and
-- settings holds here too.
--
-- ORDER BY (name, source, occurred_at): metric_windows groups by name, kind, unit, source and dimensions and walks
-- each counter in order of time, and people ask for one metric. Values of one series beside each other take 2.8
-- bytes, by time alone 3.6. dimensions would be next in the key, but a Map cannot be in one. No Gorilla for value:
-- 4.5 bytes, because a name and source mixes the series of several dimensions.
--
-- The rejected table is ordered by arrival: it is read newest first and by cursor.

CREATE TABLE IF NOT EXISTS {{raw}}.`metrics`
(
    `metric_id` String COMMENT 'the producer\'s id of the measurement' CODEC(ZSTD(1)),
    `name` LowCardinality(String) COMMENT 'what is measured: lower case, digits, _ . : -' CODEC(ZSTD(1)),
    `kind` LowCardinality(String) COMMENT 'one of counter, gauge, histogram' CODEC(ZSTD(1)),
    `value` Float64 COMMENT 'the measured value, in `unit`' CODEC(ZSTD(1)),
    `unit` LowCardinality(Nullable(String)) COMMENT 'unit of the value' CODEC(ZSTD(1)),
    `source` LowCardinality(String) COMMENT 'who measured' CODEC(ZSTD(1)),
    `dimensions` Map(LowCardinality(String), String) COMMENT 'labels, text to text' CODEC(ZSTD(1)),
    `occurred_at` DateTime64(6, 'UTC') COMMENT 'when it was measured, RFC 3339 with a zone' CODEC(GCD, Delta, ZSTD(1)),
    `schema_version` Int32 COMMENT 'version of this contract' CODEC(ZSTD(1)),
    `metric_date` Date CODEC(ZSTD(1)),
    `_source` LowCardinality(String) CODEC(ZSTD(1)),
    `_cursor` LowCardinality(String) CODEC(ZSTD(1)),
    `_offset` Nullable(Int64) CODEC(Delta, ZSTD(1)),
    `_message_id` Nullable(String) CODEC(ZSTD(1)),
    `_index` Int32 CODEC(ZSTD(1)),
    `_key` Nullable(String) CODEC(ZSTD(1)),
    `_headers` Array(Tuple(`key` String, `value` String)) CODEC(ZSTD(1)),
    `_ingested_at` DateTime64(6, 'UTC') CODEC(GCD, Delta, ZSTD(1)),
    `_batch_id` LowCardinality(String) CODEC(ZSTD(1)),
    INDEX `_ingested_at_range` `_ingested_at` TYPE minmax
)
ENGINE = MergeTree
PARTITION BY `metric_date`
ORDER BY (`name`, `source`, `occurred_at`)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1
COMMENT 'A measurement of one quantity at one moment.';

CREATE TABLE IF NOT EXISTS {{raw}}.`metrics_rejected`
(
    `payload` Nullable(String) COMMENT 'the untouched bytes' CODEC(ZSTD(1)),
    `reasons` Array(Tuple(`check` String, `column` String, `value` String)) COMMENT 'every check that failed' CODEC(ZSTD(1)),
    `contract` LowCardinality(String) CODEC(ZSTD(1)),
    `contract_version` Int32 CODEC(ZSTD(1)),
    `message_timestamp` Nullable(DateTime64(6, 'UTC')) CODEC(GCD, Delta, ZSTD(1)),
    `rejected_date` Date CODEC(ZSTD(1)),
    `_source` LowCardinality(String) CODEC(ZSTD(1)),
    `_cursor` LowCardinality(String) CODEC(ZSTD(1)),
    `_offset` Nullable(Int64) CODEC(Delta, ZSTD(1)),
    `_message_id` Nullable(String) CODEC(ZSTD(1)),
    `_index` Int32 CODEC(ZSTD(1)),
    `_key` Nullable(String) CODEC(ZSTD(1)),
    `_headers` Array(Tuple(`key` String, `value` String)) CODEC(ZSTD(1)),
    `_ingested_at` DateTime64(6, 'UTC') CODEC(GCD, Delta, ZSTD(1)),
    `_batch_id` LowCardinality(String) CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY `rejected_date`
ORDER BY (`_ingested_at`, `_cursor`)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1
COMMENT 'Records that contract metrics v1 refused, with every reason';
