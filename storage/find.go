package storage

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/corehaul/corehaul/dumpdir"
)

// Latest names the newest dump: alone that of all hosts, as HOST/latest that of a host.
const Latest = "latest"

// FindNamed finds the dump that a person names: as Find does, by the name of its directory (also HOST/NAME), by its host, or as Latest.
// A host, and Latest, name the newest dump. Errors are those of Find. A name that is a host and the beginning of an id is ambiguous.
func FindNamed(ctx context.Context, s Store, name string) (Entry, error) {
	e, err := s.Find(ctx, name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return e, err
	}
	several, ambiguous := errors.AsType[*AmbiguousError](err)
	newest, byHost, listErr := newestOf(ctx, s, name)
	switch {
	case listErr != nil:
		return Entry{}, listErr
	case err == nil && (!byHost || e.ID == name || e.Host == newest.Host):
		return e, nil
	case err == nil:
		return Entry{}, &AmbiguousError{Name: name, Candidates: []Ref{e.Ref, newest.Ref}}
	case ambiguous && byHost:
		several.Candidates = append(several.Candidates[:min(len(several.Candidates), MaxCandidates-1)], newest.Ref)
		return Entry{}, several
	case byHost:
		return newest, nil
	case ambiguous:
		return Entry{}, err
	}
	return findDir(ctx, s, name, err)
}

// Moves reports whether another dump may have a name later than e, which FindNamed has found by it: that of a host, or Latest.
func Moves(name string, e *Entry) bool {
	last := name[strings.LastIndexByte(name, '/')+1:]
	return !strings.HasPrefix(e.ID, last) && filepath.Base(e.Path) != last
}

// newestOf returns the newest dump if name is a host, HOST/latest or Latest. A host of that name goes first.
func newestOf(ctx context.Context, s Store, name string) (e Entry, ok bool, err error) {
	host, last, isPair := strings.Cut(name, "/")
	if isPair && !strings.EqualFold(last, Latest) || host == "" || strings.ContainsAny(host, "*?") {
		return e, false, nil
	}
	for _, f := range []Filter{{Host: Patterns{host}, Limit: 1}, {Limit: 1}} {
		list, err := s.List(ctx, f)
		if err != nil || len(list) > 0 {
			return append(list, e)[0], err == nil, err
		}
		if isPair || !strings.EqualFold(name, Latest) {
			break
		}
	}
	return e, false, nil
}

// findDir finds a dump by the name of its directory, which has the beginning of its id. none is the error if there is none.
func findDir(ctx context.Context, s Store, name string, none error) (Entry, error) {
	host, dir, isPair := strings.Cut(name, "/")
	if !isPair {
		host, dir = "", name
	}
	at, id, ok := strings.Cut(dir, "-")
	if _, err := time.Parse(dumpdir.TimeLayout, at); !ok || err != nil || id == "" {
		return Entry{}, none
	}
	if isPair {
		id = host + "/" + id
	}
	e, err := s.Find(ctx, id)
	refs := []Ref{e.Ref}
	if several, ambiguous := errors.AsType[*AmbiguousError](err); ambiguous {
		refs, err = several.Candidates, nil
	}
	if errors.Is(err, ErrNotFound) {
		return Entry{}, none
	}
	for _, ref := range refs {
		if err != nil {
			return Entry{}, err
		}
		if e, err = s.Find(ctx, ref.String()); err == nil && filepath.Base(e.Path) == dir {
			return e, nil
		}
	}
	return Entry{}, fmt.Errorf("%q: %w", name, ErrNotFound)
}
