-- The raw tables of the stream `events`: what landed, as it came, and what the contract refused (ordered by arrival:
-- it is read newest first).
--
-- A test holds that they equal what the contract derives (warehouse/ddl.py). Figures: 1.4 M events of the simulator
-- with random UUIDs for events and sessions, merged; ratios, not absolute times.
--
-- PARTITION BY day. ClickHouse would rather have months. But a day is what a backfill swaps with REPLACE PARTITION,
-- what the marts rebuild (event_date BETWEEN ...), and what expires: none of these then touches another day's rows.
-- History over many days makes many parts; inserts therefore lift max_partitions_per_insert_block.
--
-- ORDER BY (channel, session_id, occurred_at). The marts read whole days and sort by event_id to drop duplicates, so
-- no key spares them a scan; what it can do is make the scan small. A session's rows beside each other repeat
-- session, user, device, conversation and key: 36 bytes a row, against 49 by (channel, event_type, occurred_at), 41
-- by time and 82 by event_id, which would spare the sort and costs more than it. session_metrics reads its sessions
-- as runs. channel leads because it has six values and most questions name one. event_date is not in the key: it is
-- the same in all of a partition.
--
-- Codecs. ZSTD(1) everywhere: LZ4 takes 1.8 times the bytes, ZSTD(3) saves 3 % and compresses slower. GCD, Delta for
-- times: most producers send milliseconds and the column keeps microseconds, so GCD saves a third of occurred_at
-- over Delta alone, DoubleDelta costs a fifth more. No Gorilla for duration_ms: 1.6 times the bytes of ZSTD alone,
-- durations are no slow series.
--
-- LowCardinality where a column has few values over all time (type, channel, screen, source, cursor) or per part
-- (batch: one value per micro-batch, a quarter of the bytes). Not for ids and URLs: their dictionaries would outgrow
-- a part. Nullable only where the contract allows null.
--
-- The minmax index on _ingested_at is for reads by processing time (what arrived since?). Merged parts mix hours of
-- arrival; it skips the parts that arrived wholly before or after.
--
-- non_replicated_deduplication_window is what makes a repeated insert add nothing: see docs/architecture.md. It
-- counts blocks, and only the last, unrecorded lake version is ever sent again. ttl_only_drop_parts: a day expires
-- as a whole, so expiry drops parts and never rewrites one. When it expires is a setting (HEADRACE_RAW_TTL_DAYS).

CREATE TABLE IF NOT EXISTS {{raw}}.`events`
(
    `event_id` String COMMENT 'the producer\'s id of the event' CODEC(ZSTD(1)),
    `event_type` LowCardinality(String) COMMENT 'what happened: lower case, digits, _ . : -' CODEC(ZSTD(1)),
    `occurred_at` DateTime64(6, 'UTC') COMMENT 'when it happened, RFC 3339 with a zone' CODEC(GCD, Delta, ZSTD(1)),
    `received_at` Nullable(DateTime64(6, 'UTC')) COMMENT 'when a collector received it, RFC 3339 with a zone' CODEC(GCD, Delta, ZSTD(1)),
    `session_id` String COMMENT 'the visit, conversation or run it belongs to' CODEC(ZSTD(1)),
    `user_id` Nullable(String) COMMENT 'the person or account, where known' CODEC(ZSTD(1)),
    `device_id` Nullable(String) COMMENT 'the device or installation, where known' CODEC(ZSTD(1)),
    `channel` LowCardinality(String) COMMENT 'one of web, mobile, chat, server, iot, other' CODEC(ZSTD(1)),
    `page_url` Nullable(String) COMMENT 'the page, for web' CODEC(ZSTD(1)),
    `screen_name` LowCardinality(Nullable(String)) COMMENT 'the screen, for apps' CODEC(ZSTD(1)),
    `conversation_id` Nullable(String) COMMENT 'the conversation, for chat' CODEC(ZSTD(1)),
    `duration_ms` Nullable(Float64) COMMENT 'how long it took, ms' CODEC(ZSTD(1)),
    `properties` Nullable(String) COMMENT 'anything else, a JSON object' CODEC(ZSTD(1)),
    `schema_version` Int32 COMMENT 'version of this contract' CODEC(ZSTD(1)),
    `event_date` Date CODEC(ZSTD(1)),
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
PARTITION BY `event_date`
ORDER BY (`channel`, `session_id`, `occurred_at`)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1
COMMENT 'An event that a person, device or service caused, once per producer\'s message.';

CREATE TABLE IF NOT EXISTS {{raw}}.`events_rejected`
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
COMMENT 'Records that contract events v1 refused, with every reason';
