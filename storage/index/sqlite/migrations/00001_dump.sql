-- +goose Up
CREATE TABLE dump (
    host       TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    path       TEXT    NOT NULL, -- of the directory, as the store names it
    state      TEXT    NOT NULL,
    release    TEXT    NOT NULL,
    panic_line TEXT    NOT NULL,
    at_ms      INTEGER NOT NULL, -- of the crash, or of arrival: Unix milliseconds
    read_ns    INTEGER NOT NULL, -- when the manifest was read: Unix nanoseconds; an older reading never replaces a newer one
    manifest   TEXT    NOT NULL, -- JSON
    PRIMARY KEY (host, id)
) WITHOUT ROWID;

CREATE INDEX dump_id ON dump (id);
CREATE INDEX dump_at ON dump (at_ms);

CREATE TABLE built (
    at_ms INTEGER NOT NULL -- one row once the index holds every dump there was
);

-- +goose Down
DROP TABLE built;
DROP TABLE dump;
