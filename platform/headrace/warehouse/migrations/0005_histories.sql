-- A lake that was restored from an older copy counts its versions on from there: numbers that have been published come
-- again, with other rows. The fingerprint of a version's commit tells; from then on the lake is published in a new epoch,
-- which is in its tokens too, so that nothing of the old history keeps rows of the new one out.
--
-- Versions that were published before this have no fingerprint: of them only the number tells.

ALTER TABLE {{raw}}._publications
    ADD COLUMN IF NOT EXISTS fingerprint String
    COMMENT 'of the commit in the lake log; empty where it was not noted' AFTER landed_days;

ALTER TABLE {{raw}}._publications
    ADD COLUMN IF NOT EXISTS epoch UInt32
    COMMENT 'how often the lake had come back with another history' AFTER fingerprint;

ALTER TABLE {{raw}}._refreshes
    ADD COLUMN IF NOT EXISTS epoch UInt32
    COMMENT 'of the version' AFTER began_at;
