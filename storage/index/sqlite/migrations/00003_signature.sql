-- +goose Up
-- The signatures of the report, by its log and by its memory: each the fine and the coarse one, empty without one.
ALTER TABLE dump ADD COLUMN log_signature    TEXT NOT NULL DEFAULT '';
ALTER TABLE dump ADD COLUMN log_coarse       TEXT NOT NULL DEFAULT '';
ALTER TABLE dump ADD COLUMN memory_signature TEXT NOT NULL DEFAULT '';
ALTER TABLE dump ADD COLUMN memory_coarse    TEXT NOT NULL DEFAULT '';
ALTER TABLE dump ADD COLUMN signature        TEXT NOT NULL DEFAULT ''; -- the one of the two by which the dump is grouped
ALTER TABLE dump ADD COLUMN coarse           TEXT NOT NULL DEFAULT ''; -- of the same
ALTER TABLE dump ADD COLUMN signatures       TEXT NOT NULL DEFAULT '{}'; -- JSON: both, with their words

CREATE INDEX dump_signature ON dump (signature);
CREATE INDEX dump_log_signature ON dump (log_signature);
CREATE INDEX dump_memory_signature ON dump (memory_signature);
CREATE INDEX dump_coarse ON dump (coarse);

DELETE FROM built; -- the store fills the new columns

-- +goose Down
DROP INDEX dump_coarse;
DROP INDEX dump_memory_signature;
DROP INDEX dump_log_signature;
DROP INDEX dump_signature;
ALTER TABLE dump DROP COLUMN signatures;
ALTER TABLE dump DROP COLUMN coarse;
ALTER TABLE dump DROP COLUMN signature;
ALTER TABLE dump DROP COLUMN memory_coarse;
ALTER TABLE dump DROP COLUMN memory_signature;
ALTER TABLE dump DROP COLUMN log_coarse;
ALTER TABLE dump DROP COLUMN log_signature;
