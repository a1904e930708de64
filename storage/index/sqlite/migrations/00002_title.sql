-- +goose Up
ALTER TABLE dump ADD COLUMN kind  TEXT NOT NULL DEFAULT ''; -- of the report; empty without one
ALTER TABLE dump ADD COLUMN title TEXT NOT NULL DEFAULT '';

DELETE FROM built; -- the store fills the new columns

-- +goose Down
ALTER TABLE dump DROP COLUMN title;
ALTER TABLE dump DROP COLUMN kind;
