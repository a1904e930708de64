// Package stores opens a store by its URL. It is the one place that knows every implementation of storage.Store.
//
// A URL begins with "file:" or with any scheme and "://". Everything else is the path of a local directory, which may be
// relative.
package stores

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/corehaul/corehaul/internal/lazyregexp"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
)

// opener opens the store at a URL of its scheme.
type opener func(context.Context, *url.URL, storage.OpenOptions) (storage.Store, error)

const fileScheme = "file"

// openers are the implementations, by the scheme of their URLs.
var openers = map[string]opener{fileScheme: openLocal}

// Open opens the store at a URL or local path. The error matches fs.ErrNotExist when opts ask for a store that exists and
// there is none.
func Open(ctx context.Context, where string, opts storage.OpenOptions) (storage.Store, error) {
	u, err := parse(where)
	if err != nil {
		return nil, err
	}
	return openers[u.Scheme](ctx, u, opts)
}

// Dir returns the directory of a local store, where a server keeps what is its own beside the dumps. It touches no disk. The
// error of any other store says so.
func Dir(where string) (string, error) {
	u, err := parse(where)
	if err != nil {
		return "", err
	}
	return localDir(u)
}

// Check returns why this process could not write to the store at a URL or local path. It changes nothing, and a store that is missing
// but can be made is no error.
func Check(where string) error {
	dir, err := Dir(where)
	if err != nil {
		return err
	}
	return local.Check(dir)
}

var scheme = lazyregexp.New(`^(?i:([a-z][a-z0-9+.-]*)://|file:)`)

// parse returns the URL of a store, whose scheme has an opener.
func parse(where string) (*url.URL, error) {
	if !scheme.MatchString(where) {
		return &url.URL{Scheme: fileScheme, Path: where}, nil
	}
	u, err := url.Parse(where)
	if err != nil {
		return nil, fmt.Errorf("%q is neither a path nor a URL such as file:///var/lib/corehaul", where)
	}
	if openers[u.Scheme] == nil {
		known := strings.Join(slices.Sorted(maps.Keys(openers)), ", ")
		return nil, fmt.Errorf("no store has the URL scheme %q; the schemes are: %s; a path names a local directory", u.Scheme, known)
	}
	return u, nil
}

func openLocal(ctx context.Context, u *url.URL, opts storage.OpenOptions) (storage.Store, error) {
	dir, err := localDir(u)
	if err != nil {
		return nil, err
	}
	s, err := local.Open(ctx, dir, opts)
	if err != nil {
		return nil, err // not a nil *local.Store in an interface
	}
	return s, nil
}

// localDir returns the path that u names.
func localDir(u *url.URL) (string, error) {
	if u.Scheme != fileScheme || u.Opaque != "" || u.Host != "" && u.Host != "localhost" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%s names no local directory; a file URL has an absolute path, as file:///var/lib/corehaul", u)
	}
	return u.Path, nil
}
