-- +goose Up
ALTER TABLE dump ADD COLUMN vague  INTEGER NOT NULL DEFAULT 0;  -- the signature of the dump names no place in the code
ALTER TABLE dump ADD COLUMN linked TEXT    NOT NULL DEFAULT ''; -- the other signature of the dump, if both name the same crash

-- A list of groups reads these columns of every dump, and not the long rows.
CREATE INDEX dump_sighting ON dump (at_ms, host, id, state, release, title, panic_line, signature, vague, linked);

DELETE FROM built; -- the store fills the new columns

-- +goose Down
DROP INDEX dump_sighting;
ALTER TABLE dump DROP COLUMN linked;
ALTER TABLE dump DROP COLUMN vague;
