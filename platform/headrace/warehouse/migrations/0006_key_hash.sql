-- The hash of the producer's key, by which the models find what was sent again (var repeat_days): a build looks for the
-- keys of its days among those of the days around, and reads 8 bytes a row there instead of hashing ids of 36.
--
-- MATERIALIZED: ClickHouse works it out at each insert, and nobody sends it; SELECT * leaves it out. Parts that were
-- written before are hashed as they are read, until they are merged or their day is rebuilt: no history is rewritten here.
--
-- Of the key's text, which stays the same while the type widens. CODEC(NONE): hashes do not compress.

ALTER TABLE {{raw}}.`events`
    ADD COLUMN IF NOT EXISTS `_key_hash` UInt64 MATERIALIZED cityHash64(toString(`event_id`))
    COMMENT 'hash of event_id' CODEC(NONE);

ALTER TABLE {{raw}}.`metrics`
    ADD COLUMN IF NOT EXISTS `_key_hash` UInt64 MATERIALIZED cityHash64(toString(`metric_id`))
    COMMENT 'hash of metric_id' CODEC(NONE);
