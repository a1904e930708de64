package debuginfo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/corehaul/corehaul/debuginfo/symbolfile"
)

// Finder finds files. It belongs to one goroutine. Set its fields before its first use.
type Finder struct {
	Dirs       []string // debug directories, in the order of preference
	OtherCache string   // of elfutils, "" for none; only read
	Servers    *Servers // nil for none
	Cache      *Cache   // where downloads go; nil if there can be none
	NoCache    error    // why Cache is nil
	// Tell is told what is worth a line: a download that begins, a wait for another process. It may be nil.
	Tell func(line string)

	modules map[string]map[string][]string // of each directory: files by the names of modules
	asked   map[string]error               // by build id: what the servers answered
}

// File is an open file with debugging information. Name returns its path.
type File struct {
	*os.File
	Downloaded bool // it lies in the cache, and may be removed when it is closed
}

// NotFoundError says that a file was not found, and where it was looked for.
type NotFoundError struct {
	Want   Want
	Looked []string // places, in the order of the search
	Failed []string // what is wrong with what is there, and why servers could not be asked
}

func (e *NotFoundError) Error() string {
	if e.Want.BuildID == nil {
		return fmt.Sprintf("no %s of kernel %.80q with debugging information (the dump has no build id of it)", e.Want.Name(), e.Want.Release)
	}
	return fmt.Sprintf("no %s with debugging information and build id %v", e.Want.Name(), e.Want.BuildID)
}

// Find finds a file on this machine, in the cache or on the servers. The error is a *NotFoundError, or says why nothing can be
// downloaded, such as a full disk. The caller closes the file.
func (f *Finder) Find(ctx context.Context, w Want) (*File, error) {
	file, err := f.FindHere(w)
	if err == nil {
		return file, nil
	}
	var missing *NotFoundError
	if !errors.As(err, &missing) || f.Servers == nil || w.BuildID == nil {
		return nil, err
	}
	if f.Cache == nil {
		return nil, fmt.Errorf("%w; nothing can be downloaded: %w", missing, f.NoCache)
	}
	hex := w.BuildID.String()
	if err, ok := f.asked[hex]; ok {
		return nil, err
	}
	path, err := f.Cache.fetch(ctx, w.BuildID, f.tell, func(p *part) error { return f.Servers.get(ctx, w, p, f.tell) })
	if err == nil {
		return &File{File: path, Downloaded: true}, nil
	}
	var none *noServerError
	if errors.As(err, &none) {
		missing.Looked, missing.Failed = append(missing.Looked, f.Servers.URLs...), append(missing.Failed, none.failed...)
		err = missing
	}
	if ctx.Err() == nil {
		f.asked[hex] = err
	}
	return nil, err
}

// FindHere is Find without servers.
func (f *Finder) FindHere(w Want) (*File, error) {
	if f.modules == nil {
		f.modules, f.asked = map[string]map[string][]string{}, map[string]error{}
	}
	file, looked, failed := f.local(w)
	if file != nil {
		return file, nil
	}
	if f.Cache != nil && w.BuildID != nil {
		looked = append(looked, f.Cache.Dir)
		if cached := f.Cache.open(w.BuildID, f.tell); cached != nil {
			return &File{File: cached, Downloaded: true}, nil
		}
	}
	return nil, &NotFoundError{Want: w, Looked: looked, Failed: failed}
}

// Open opens the file at a path, which has to have the build id, or any if id is nil.
func Open(path string, id symbolfile.BuildID) (*File, error) {
	file, err := openChecked(path, id)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return file, nil
}

func (f *Finder) tell(format string, args ...any) {
	if f.Tell != nil {
		f.Tell(strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
}
