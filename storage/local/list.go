package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/hostname"
	"github.com/corehaul/corehaul/storage"
)

// maxIgnored bounds ReindexReport.Ignored.
const maxIgnored = 100

// List implements storage.Store.
func (s *Store) List(ctx context.Context, f storage.Filter) ([]storage.Entry, error) {
	limit, states := f.Limit, f.State
	f.Limit = 0 // dumps in the index may be gone
	if slices.Contains(states, dumpdir.StateDamaged) {
		f.State = nil // only the side file knows most damage
	}
	var entries []storage.Entry
	err := s.withIndex(ctx, func(ix *indexHandle) (err error) {
		entries, err = ix.List(ctx, f)
		return err
	})
	if err != nil && ctx.Err() == nil {
		s.indexFailed(err)
		if entries, _, err = s.scan(ctx); err == nil {
			entries = filterEntries(entries, f)
		}
	}
	if err != nil {
		return nil, err
	}
	s.misnamed.Do(s.warnMisnamed)
	out := []storage.Entry{}
	for _, e := range entries {
		if limit > 0 && len(out) == limit {
			break
		}
		if err := ctx.Err(); err != nil {
			return nil, err // each one is read from the disk
		}
		if s.completeEntry(ctx, &e) && (states == nil || slices.Contains(states, e.State())) && (!f.Pinned || e.Pin != nil) && saysWhat(&e, f.Panic) {
			out = append(out, e)
		}
	}
	return out, nil
}

// completeEntry brings an entry of the index up to date and reports whether its dump is there.
func (s *Store) completeEntry(ctx context.Context, e *storage.Entry) bool {
	if !filepath.IsAbs(e.Path) {
		e.Path = filepath.Join(s.dir, e.Path)
	}
	if !s.refreshManifest(ctx, e) {
		if !s.opts.ReadOnly {
			s.removeFromIndex(ctx, e.Ref)
		}
		return false
	}
	kind, title, signatures := e.Kind, e.Title, e.Signatures
	s.readSides(e)
	if !s.opts.ReadOnly && (e.Kind != kind || e.Title != title || !reflect.DeepEqual(e.Signatures, signatures)) {
		s.updateIndexFrom(ctx, e.Path) // whoever wrote the report was killed before that
	}
	return true
}

// refreshManifest reads a dump again unless it is sealed and its journal agrees. The counts of an arriving dump are in
// the journal, because the manifest is not written with every chunk. It reports whether the dump is there.
func (s *Store) refreshManifest(ctx context.Context, e *storage.Entry) bool {
	was := e.Manifest.State
	if was != dumpdir.StateArriving && was != dumpdir.StateDamaged {
		if sealed, err := dumpdir.EndsSealed(s.fs, e.Path); sealed || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	read := time.Now()
	fresh, err := s.readEntry(e.Path)
	switch {
	case errors.Is(err, dumpdir.ErrNotExist):
		return false
	case isDamage(err): // the manifest cannot be read, so only the index knows the dump
		e.Manifest.State = dumpdir.StateDamaged
		return true
	case err != nil || fresh.Ref != e.Ref:
		return true
	}
	if e.Manifest = fresh.Manifest; e.Manifest.State != dumpdir.StateArriving && e.Manifest.State != was && !s.opts.ReadOnly {
		s.updateIndex(ctx, &fresh, read) // its writer was killed before that, or the dump was damaged since
	}
	return true
}

// removeFromIndex deletes the entry of a dump that a person removed.
func (s *Store) removeFromIndex(ctx context.Context, ref storage.Ref) {
	err := s.withIndex(ctx, func(ix *indexHandle) error { return ix.Delete(ctx, ref) })
	if err != nil && !errors.Is(err, errNoIndex) {
		s.opts.Log.Warn("the index was not updated", "host", ref.Host, "dump", ref.ID, "error", err)
	}
}

// readEntry reads one dump's entry from its directory, with what the index has of it.
func (s *Store) readEntry(dir string) (storage.Entry, error) {
	d, err := dumpdir.Open(s.fs, dir)
	if err != nil {
		return storage.Entry{}, err
	}
	m := d.Manifest()
	if d.Damage() != nil {
		m.State = dumpdir.StateDamaged
	}
	e := storage.Entry{Ref: storage.Ref{Host: m.Host, ID: m.ID}, Path: dir, Manifest: *m}
	e.ReadReport(s.fs)
	return e, d.Close()
}

// readAnyEntry is readEntry that also accepts a dump whose journal and manifest cannot be read. Host and id come from the
// names of its directories then. The short id is filled up with zeros.
func (s *Store) readAnyEntry(dir string) (storage.Entry, error) {
	e, err := s.readEntry(dir)
	if !isDamage(err) {
		return e, err
	}
	at, id, ok := strings.Cut(filepath.Base(dir), "-")
	begin, timeErr := time.Parse(dumpdir.TimeLayout, at)
	if !ok || timeErr != nil {
		return e, err
	}
	if missing := dumpdir.MinID - len(id); missing > 0 {
		id += strings.Repeat("0", missing)
	}
	ref := storage.Ref{Host: filepath.Base(filepath.Dir(dir)), ID: id}
	m := dumpdir.Manifest{Version: dumpdir.ManifestVersion, ID: ref.ID, Host: ref.Host, State: dumpdir.StateDamaged, Reason: err.Error(), StartTime: begin}
	return storage.Entry{Ref: ref, Path: dir, Manifest: m}, nil
}

// scan reads all dumps from their directories, newest first.
func (s *Store) scan(ctx context.Context) (entries []storage.Entry, ignored []string, err error) {
	hosts, err := s.fs.ReadDir(s.dumps())
	if err != nil {
		return nil, nil, err
	}
	ignore := func(path string) {
		if len(ignored) < maxIgnored {
			ignored = append(ignored, s.relative(path))
		}
	}
	for _, host := range hosts {
		names, err := s.fs.ReadDir(filepath.Join(s.dumps(), host))
		if errors.Is(err, fs.ErrPermission) {
			s.opts.Log.Warn("the dumps of a host are not listed: its directory may not be read", "host", host, "error", err)
		}
		if err != nil || hostname.Check(host) != nil {
			ignore(filepath.Join(s.dumps(), host))
			continue
		}
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return nil, nil, err
			}
			dir := filepath.Join(s.dumps(), host, name)
			e, err := s.readAnyEntry(dir)
			if err != nil || e.Host != host || storage.CheckRef(e.Ref) != nil {
				ignore(dir)
				continue
			}
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, newestFirst)
	return entries, ignored, nil
}

func newestFirst(a, b storage.Entry) int {
	return cmp.Or(b.When().Compare(a.When()), cmp.Compare(a.Host, b.Host), cmp.Compare(a.ID, b.ID))
}

// filterEntries returns the entries that f chooses, as the index does.
func filterEntries(entries []storage.Entry, f storage.Filter) []storage.Entry {
	only := map[storage.Ref]bool{}
	for _, ref := range f.Only {
		only[ref] = true
	}
	return slices.DeleteFunc(entries, func(e storage.Entry) bool {
		at := e.When()
		return !f.Host.Match(e.Host) ||
			f.State != nil && !slices.Contains(f.State, e.Manifest.State) ||
			!f.Since.IsZero() && at.Before(f.Since) ||
			!f.Until.IsZero() && !at.Before(f.Until) ||
			!f.Release.MatchPart(e.Manifest.Release) || !saysWhat(&e, f.Panic) ||
			f.Only != nil && !only[e.Ref]
	})
}

// saysWhat reports whether a pattern matches a part of the title or of the panic line of e.
func saysWhat(e *storage.Entry, what storage.Patterns) bool {
	return what.MatchPart(e.Title, e.Manifest.PanicLine)
}

// Find implements storage.Store.
func (s *Store) Find(ctx context.Context, name string) (storage.Entry, error) {
	host, prefix, ok := strings.Cut(name, "/")
	if !ok {
		host, prefix = "", name
	}
	if prefix == "" {
		return storage.Entry{}, fmt.Errorf("%q: %w", name, storage.ErrNotFound)
	}
	found, err := s.beginningWith(ctx, host, prefix)
	if err != nil {
		return storage.Entry{}, err
	}
	if exact := slices.DeleteFunc(slices.Clone(found), func(e storage.Entry) bool { return e.ID != prefix }); len(exact) > 0 {
		found = exact
	}
	switch len(found) {
	case 0:
		return storage.Entry{}, fmt.Errorf("%q: %w", name, storage.ErrNotFound)
	case 1:
		return found[0], nil
	}
	e := &storage.AmbiguousError{Name: name}
	for i := range found[:min(len(found), storage.MaxCandidates)] {
		e.Candidates = append(e.Candidates, found[i].Ref)
	}
	return storage.Entry{}, e
}

// maxPrefix bounds how many dumps Find looks at for one name: an exact id sorts before longer ones of its host.
const maxPrefix = 1000

// beginningWith returns the dumps whose id begins with prefix, sorted by host and id.
func (s *Store) beginningWith(ctx context.Context, host, prefix string) ([]storage.Entry, error) {
	var found []storage.Entry
	err := s.withIndex(ctx, func(ix *indexHandle) (err error) {
		found, err = ix.Prefix(ctx, host, prefix, maxPrefix)
		return err
	})
	if err != nil && ctx.Err() == nil {
		s.indexFailed(err)
		found, _, err = s.scan(ctx)
		found = slices.DeleteFunc(found, func(e storage.Entry) bool {
			return host != "" && e.Host != host || !strings.HasPrefix(e.ID, prefix)
		})
		slices.SortFunc(found, func(a, b storage.Entry) int { return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.ID, b.ID)) })
	}
	if err != nil {
		return nil, err
	}
	var out []storage.Entry
	for _, e := range found {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if s.completeEntry(ctx, &e) {
			out = append(out, e)
		}
	}
	return out, nil
}

// Reindex implements storage.Store.
func (s *Store) Reindex(ctx context.Context) (storage.ReindexReport, error) {
	var rep storage.ReindexReport
	finished, err := s.emptyTrash(ctx)
	if err != nil {
		return rep, err
	}
	rep.Finished = finished
	read := time.Now()
	entries, ignored, err := s.scan(ctx)
	if err != nil {
		return rep, err
	}
	rep.Dumps, rep.Ignored = len(entries), ignored
	for i := range entries {
		if entries[i].State() == dumpdir.StateDamaged {
			rep.Damaged++
		}
	}
	fill := func(ix *indexHandle) error { return s.rebuild(ctx, ix.Index, slices.Clone(entries), read) }
	err = s.withIndex(ctx, fill)
	if err != nil && ctx.Err() == nil { // for example held by a process that hangs
		s.opts.Log.Warn("the index cannot be written; making a new one", "path", s.indexPath(), "error", err)
		if err = s.discardIndex(); err == nil {
			err = s.withIndex(ctx, fill)
		}
	}
	return rep, err
}
