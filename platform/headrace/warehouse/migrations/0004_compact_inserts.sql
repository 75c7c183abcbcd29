-- What an insert adds is a compact part: one file for all columns. A part of the 20 to 40 columns' files that a wide one
-- has costs ClickHouse most of what an insert costs. Measured on 1 M events in inserts of 40,000, processor time of the
-- server with its merges: 4.3 to 6.6 s where these parts are wide, 2.2 to 2.3 s where they are compact; without merges
-- 3.8 and 1.5 s.
--
-- 64 MiB, uncompressed, is a micro-batch of 40,000 records of 1.6 KB. What merges make of several is larger and wide, as
-- reads of few columns want it. ClickHouse's own limit is 10 MiB, a quarter of such a micro-batch.

ALTER TABLE {{raw}}.`events` MODIFY SETTING min_bytes_for_wide_part = 67108864;

ALTER TABLE {{raw}}.`events_rejected` MODIFY SETTING min_bytes_for_wide_part = 67108864;

ALTER TABLE {{raw}}.`metrics` MODIFY SETTING min_bytes_for_wide_part = 67108864;

ALTER TABLE {{raw}}.`metrics_rejected` MODIFY SETTING min_bytes_for_wide_part = 67108864;
