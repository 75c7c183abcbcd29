-- What an insert adds is a compact part: one file for all columns. A wide part has a file or two for each column, some
-- sixty for events, and making and removing so many files is what an insert then costs, where that is slow. Measured on
-- 1 M events in inserts of 40,000, processor time of the server: on ext4 without a journal 3.8 s where parts are wide, 1.5
-- where they are compact (4.3 to 6.6 and 2.2 with the merges that follow); in memory (tmpfs) 1.4 and 1.2.
--
-- 64 MiB, uncompressed, is a micro-batch of 32,000 records of 2 KB. What merges make of several is larger and wide, as
-- reads of few columns want it. ClickHouse's own limit is 10 MiB, less than a micro-batch.

ALTER TABLE {{raw}}.`events` MODIFY SETTING min_bytes_for_wide_part = 67108864;

ALTER TABLE {{raw}}.`events_rejected` MODIFY SETTING min_bytes_for_wide_part = 67108864;

ALTER TABLE {{raw}}.`metrics` MODIFY SETTING min_bytes_for_wide_part = 67108864;

ALTER TABLE {{raw}}.`metrics_rejected` MODIFY SETTING min_bytes_for_wide_part = 67108864;
