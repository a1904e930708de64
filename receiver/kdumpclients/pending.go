package kdumpclients

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/corehaul/corehaul/dumpcopy"
	"github.com/corehaul/corehaul/dumpdir"
)

// clientEnded reports whether the client has ended or is gone. A client that has crashed again is gone. h.mu is held.
func (j *job) clientEnded() bool {
	for _, f := range j.dir.Files {
		if f.Status == fileArriving {
			return false
		}
	}
	return j.dir.Past != "" || time.Since(j.dir.Used) >= j.svc.cfg.Grace
}

// hasWork reports whether the job has work now. h.mu is held.
func (j *job) hasWork() bool {
	d := j.dir
	if d.Dump != nil && d.Dump.Image != nil && !d.Dump.Sealed {
		return true
	}
	if name, _ := j.nextLog(); name != "" {
		return true
	}
	if name, _ := j.nextImage(); name != "" {
		return true
	}
	if d.Dump != nil && d.Dump.Sealed && j.nextKept() != "" {
		return true
	}
	return j.clientEnded() && (d.Dump != nil || j.clientFiles())
}

// clientFiles reports whether there are files beside those of the test mode. h.mu is held.
func (j *job) clientFiles() bool {
	for name := range j.dir.Files {
		if !dumpcopy.IsStatus(name) {
			return true
		}
	}
	return false
}

// usable reports whether no more bytes of f will come. h.mu is held.
func (j *job) usable(f *fileState) bool {
	return f.Status == fileWhole || f.Status == fileBroken && j.clientEnded()
}

// each calls fn for the files in order of creation until fn returns false. h.mu is held.
func (d *dirState) each(fn func(name string, f *fileState) bool) {
	names := slices.SortedFunc(maps.Keys(d.Files), func(a, b string) int { return int(d.Files[a].Num) - int(d.Files[b].Num) }) //nolint:gosec // numbers are small
	for _, name := range names {
		if !fn(name, d.Files[name]) {
			return
		}
	}
}

// nextLog returns a log to store, if the dump has none. h.mu is held.
func (j *job) nextLog() (name string, f *fileState) {
	if d := j.dir.Dump; d != nil && d.Sealed {
		return "", nil
	}
	j.dir.each(func(n string, g *fileState) bool {
		if dumpcopy.IsLog(n) && g.Image == nil && j.usable(g) && g.Size > 0 && (g.Status == fileWhole || f == nil || f.Status == fileBroken) {
			name, f = n, g // a later one is from another try of the client
		}
		return true
	})
	if d := j.dir.Dump; d != nil && f != nil && (d.Log == f.Num || f.Kept) {
		return "", nil
	}
	return name, f
}

// nextImage returns a dump to import: a complete one or, if there is none and the client is gone, the last incomplete one.
// h.mu is held.
func (j *job) nextImage() (name string, f *fileState) {
	broken, done := "", false
	j.dir.each(func(n string, g *fileState) bool {
		switch {
		case g.Image == nil:
		case g.Image.Done:
			done = done || g.Status == fileWhole
		case g.Status == fileWhole:
			name, f = n, g
			return false
		case j.usable(g):
			broken = n
		}
		return true
	})
	if f == nil && broken != "" && !done {
		return broken, j.dir.Files[broken]
	}
	return name, f
}

// nextKept returns a file to keep beside the dump. h.mu is held.
func (j *job) nextKept() (name string) {
	j.dir.each(func(n string, f *fileState) bool {
		if f.Image == nil && !f.Kept && !dumpcopy.IsStatus(n) && j.usable(f) && !j.isStoredLog(f) {
			name = n
		}
		return name == ""
	})
	return name
}

func (j *job) isStoredLog(f *fileState) bool { return j.dir.Dump != nil && j.dir.Dump.Log == f.Num }

// noImage returns why there is no dump in the directory. h.mu is held.
func (j *job) noImage() string {
	reason := "the client sent no vmcore"
	j.dir.each(func(name string, f *fileState) bool {
		if f.Status == fileBroken && dumpcopy.IsDump(name) {
			reason = fmt.Sprintf("the client sent no vmcore that can be read (%s: %s); %s/%s is what it sent", name, f.Reason, dumpdir.KeptDirName, dumpcopy.KeptName(name))
		}
		return true
	})
	return reason
}
