// Package sqlite implements an index of dumps with a SQLite database.
//
// The database is one file and, while open, others with the suffixes -wal, -shm and
// -journal. It is in WAL mode with a busy timeout, so several processes may use it at
// once. Open updates its schema by the migrations in this package. A caller that may race
// with another process there has to hold a lock during Open.
//
// An Index is safe for concurrent use.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/index"
)

//go:embed migrations/*.sql
var migrations embed.FS

// busyTimeout is how long a statement waits for another process's transaction.
const busyTimeout = 15 * time.Second

// Index is an open index.
type Index struct {
	db *sql.DB
}

var _ index.Index = (*Index)(nil)

// Open opens the index at path, creates it if there is none, and updates its schema. The error matches index.ErrUnusable if
// the file is no index, is damaged, or has the schema of a later version.
func Open(ctx context.Context, path string) (*Index, error) {
	if err := checkFiles(path); err != nil {
		return nil, err
	}
	hide(path)
	q := url.Values{"_txlock": {"immediate"}}
	for _, p := range []string{
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()), "journal_mode(WAL)", "synchronous(NORMAL)",
	} {
		q.Add("_pragma", p)
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, err
	}
	ix := &Index{db: db}
	if err := ix.migrate(ctx); err != nil {
		return nil, mark(errors.Join(fmt.Errorf("%s: %w", path, err), db.Close()))
	}
	return ix, nil
}

func (ix *Index) migrate(ctx context.Context) error {
	if err := ix.db.PingContext(ctx); err != nil {
		return err
	}
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, ix.db, sub, goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	has, known, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	if has > known {
		return fmt.Errorf("%w: it has schema version %d, this program knows up to %d", index.ErrUnusable, has, known)
	}
	_, err = p.Up(ctx)
	return err
}

// Close closes the index.
func (ix *Index) Close() error { return ix.db.Close() }

// unusable is an error of SQLite that matches index.ErrUnusable.
type unusable struct{ error }

func (u unusable) Unwrap() error { return u.error }

func (unusable) Is(target error) bool { return target == index.ErrUnusable }

// mark makes an error of SQLite match index.ErrUnusable if the file itself is the problem.
func mark(err error) error {
	if atFault(err) {
		return unusable{err}
	}
	return err
}

func atFault(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	switch e.Code() & 0xff { // the primary code
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_FULL, sqlite3.SQLITE_PERM,
		sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT:
		return false
	}
	return true
}

// execer is a database or a transaction.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Put implements index.Index.
func (ix *Index) Put(ctx context.Context, e *storage.Entry, read time.Time) error {
	return mark(put(ctx, ix.db, e, read))
}

func put(ctx context.Context, db execer, e *storage.Entry, read time.Time) error {
	m, err := json.Marshal(&e.Manifest)
	if err != nil {
		return err
	}
	signatures, err := json.Marshal(&e.Signatures)
	if err != nil {
		return err
	}
	args := []any{
		e.Host, e.ID, e.Path, string(e.Manifest.State), e.Manifest.Release, e.Manifest.PanicLine, e.Kind, e.Title,
		e.When().UnixMilli(), read.UnixNano(), string(m), string(signatures),
	}
	for _, s := range []*dumpdir.Signature{e.Signature(), e.Signatures.Log, e.Signatures.Memory} {
		if s == nil {
			s = new(dumpdir.Signature)
		}
		args = append(args, s.ID, s.Coarse)
	}
	seen := e.Sighting()
	args = append(args, seen.Vague, seen.Linked)
	_, err = db.ExecContext(ctx, `INSERT INTO dump (host, id, path, state, release, panic_line, kind, title, at_ms, read_ns, manifest,
			signatures, signature, coarse, log_signature, log_coarse, memory_signature, memory_coarse, vague, linked)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (host, id) DO UPDATE SET path = excluded.path, state = excluded.state, release = excluded.release,
			panic_line = excluded.panic_line, kind = excluded.kind, title = excluded.title, at_ms = excluded.at_ms, read_ns = excluded.read_ns,
			manifest = excluded.manifest, signatures = excluded.signatures, signature = excluded.signature, coarse = excluded.coarse,
			log_signature = excluded.log_signature, log_coarse = excluded.log_coarse,
			memory_signature = excluded.memory_signature, memory_coarse = excluded.memory_coarse, vague = excluded.vague, linked = excluded.linked
		WHERE excluded.read_ns >= dump.read_ns`, args...)
	return err
}

// Delete implements index.Index.
func (ix *Index) Delete(ctx context.Context, ref storage.Ref) error {
	_, err := ix.db.ExecContext(ctx, `DELETE FROM dump WHERE host = ? AND id = ?`, ref.Host, ref.ID)
	return mark(err)
}

// Built implements index.Index.
func (ix *Index) Built(ctx context.Context) (bool, error) {
	var n int
	err := ix.db.QueryRowContext(ctx, `SELECT count(*) FROM built`).Scan(&n)
	return n > 0, mark(err)
}

// Rebuild implements index.Index.
func (ix *Index) Rebuild(ctx context.Context, entries []storage.Entry, read time.Time) error {
	return mark(ix.rebuild(ctx, entries, read))
}

// rebuild is Rebuild in one transaction.
func (ix *Index) rebuild(ctx context.Context, entries []storage.Entry, read time.Time) error {
	tx, err := ix.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	if _, err := tx.ExecContext(ctx, `DELETE FROM dump WHERE read_ns < ?`, read.UnixNano()); err != nil {
		return err
	}
	for i := range entries {
		if err := put(ctx, tx, &entries[i], read); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM built`); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO built (at_ms) VALUES (?)`, read.UnixMilli()); err != nil {
		return err
	}
	return tx.Commit()
}

// List implements index.Index.
func (ix *Index) List(ctx context.Context, f storage.Filter) ([]storage.Entry, error) {
	where, args := conditions(f)
	query := `SELECT host, id, path, kind, title, signatures, manifest FROM dump` + where + ` ORDER BY at_ms DESC, host, id`
	if f.Limit > 0 {
		query += fmt.Sprintf(" LIMIT %d", f.Limit)
	}
	return ix.query(ctx, query, args...)
}

func conditions(f storage.Filter) (where string, args []any) {
	var conds []string
	add := func(cond string, arg ...any) { conds, args = append(conds, cond), append(args, arg...) }
	oneOf := func(cond string, texts []string) { // one of them holds, for one of the texts
		list, _ := json.Marshal(texts) // of strings
		add("EXISTS (SELECT 1 FROM json_each(?) WHERE "+cond+")", string(list))
	}
	if !f.Host.MatchAll() {
		oneOf("lower(host) GLOB lower(json_each.value)", f.Host.Globs(false))
	}
	if len(f.State) > 0 {
		list, _ := json.Marshal(f.State) // of strings
		add("state IN (SELECT value FROM json_each(?))", string(list))
	}
	if !f.Since.IsZero() {
		add("at_ms >= ?", f.Since.UnixMilli())
	}
	if !f.Until.IsZero() {
		add("at_ms < ?", f.Until.UnixMilli())
	}
	if !f.Release.MatchAll() {
		oneOf("lower(release) GLOB lower(json_each.value)", f.Release.Globs(true))
	}
	if !f.Panic.MatchAll() {
		oneOf("lower(title) GLOB lower(json_each.value) OR lower(panic_line) GLOB lower(json_each.value)", f.Panic.Globs(true))
	}
	if f.Only != nil {
		pairs, _ := json.Marshal(f.Only) // of strings
		add("(host, id) IN (SELECT value ->> 'host', value ->> 'id' FROM json_each(?))", string(pairs))
	}
	if len(conds) == 0 {
		return "", nil
	}
	return " WHERE " + strings.Join(conds, " AND "), args
}

// Prefix implements index.Index. It reads the index of ids only where they begin so.
func (ix *Index) Prefix(ctx context.Context, host, prefix string, limit int) ([]storage.Entry, error) {
	return ix.query(ctx, prefixQuery, prefix, host, limit)
}

const prefixQuery = `SELECT host, id, path, kind, title, signatures, manifest FROM dump
		WHERE id >= ?1 AND id < ?1 || char(0x10ffff) AND (?2 = '' OR host = ?2) ORDER BY host, id LIMIT ?3`

func (ix *Index) query(ctx context.Context, query string, args ...any) (entries []storage.Entry, err error) {
	rows, err := ix.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, mark(err)
	}
	defer func() { err = mark(errors.Join(err, rows.Close())) }()
	for rows.Next() {
		var e storage.Entry
		var m, signatures string
		if err := rows.Scan(&e.Host, &e.ID, &e.Path, &e.Kind, &e.Title, &signatures, &m); err != nil {
			return nil, fmt.Errorf("%w: %w", index.ErrUnusable, err)
		}
		if err := json.Unmarshal([]byte(signatures), &e.Signatures); err != nil {
			e.Signatures = dumpdir.Signatures{} // the report says it again
		}
		if err := json.Unmarshal([]byte(m), &e.Manifest); err != nil {
			e.Manifest = dumpdir.Manifest{ID: e.ID, Host: e.Host, State: dumpdir.StateDamaged}
		}
		entries = append(entries, e)
	}
	return entries, rows.Err()
}
