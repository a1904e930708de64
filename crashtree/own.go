package crashtree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/corehaul/corehaul/depotcopy"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
)

// OtherHostError says that a dump directory names another host than the caller.
type OtherHostError struct{ Dump, Host string }

// Error names both.
func (e *OtherHostError) Error() string {
	return fmt.Sprintf("it is a dump of the host %s, not of %s: its journal and its checksums have that name", e.Dump, e.Host)
}

// Hints says what to do next.
func (e *OtherHostError) Hints() []string { return []string{"import it without --host"} }

// ImportOwn imports the dump directory dir, which is open as from. It is copied as it is, with its journal and seal, and keeps its host and id.
// What goes wrong with this dump is in the outcome. The error is that of ctx.
func (im *Importer) ImportOwn(ctx context.Context, from *os.Root, dir string) (Outcome, error) {
	out := Outcome{Path: dir}
	return out.ended(ctx, im.runOwn(ctx, from, &out))
}

func (im *Importer) runOwn(ctx context.Context, from *os.Root, out *Outcome) error {
	seen, err := depotcopy.Look(from)
	if err != nil {
		return err
	}
	d, err := depotcopy.Open(from, seen)
	if err != nil {
		return err
	}
	out.Ref, out.HostFrom = d.Ref, fromDump
	if im.Host != "" && im.Host != d.Ref.Host {
		return &OtherHostError{d.Ref.Host, im.Host}
	}
	switch was, err := im.find(ctx, d.Ref); {
	case err != nil:
		return err
	case was != nil && !d.Better(was):
		out.present(was)
		return nil
	}
	if err := checkSender(from, &seen); err != nil {
		return err
	}
	if im.Dry {
		out.foretellOwn(d)
		return nil
	}
	return im.take(ctx, d, out)
}

// checkSender returns an error that matches errWritten if the sender of a dump may still write it. One that writes to a local disk has a lock that
// ends with it. One on another machine leaves only the times of its files.
func checkSender(from *os.Root, c *depotcopy.Contents) error {
	held, err := depotcopy.IsHeld(from)
	switch {
	case err != nil:
		return err
	case held:
		return fmt.Errorf("%w: its sender, or a receiver, is writing it", errWritten)
	case c.Sealed && !c.Locked:
		return nil
	}
	age, silence, why := time.Since(c.Newest).Abs(), quiet, "its sender has not finished it"
	if c.Sealed {
		silence, why = depotcopy.LockSilence, "its sender has not removed its lock"
	}
	if age < silence {
		return fmt.Errorf("%w: %s, and it changed %v ago; import it again in %v", errWritten, why, age.Round(time.Second), silence)
	}
	return nil
}

// take copies the dump.
func (im *Importer) take(ctx context.Context, d *depotcopy.Dump, out *Outcome) error {
	if im.Progress != nil {
		d.Progress = func(_ string, done, total uint64) { im.Progress(out.Path, done, total) }
	}
	err := d.Take(ctx, im.Store, im.Room)
	switch {
	case errors.Is(err, depotcopy.ErrChanges):
		return fmt.Errorf("%w: %w", errWritten, err)
	case errors.Is(err, storage.ErrBusy):
		return fmt.Errorf("%w: another process is writing this dump to the store", errWritten)
	case err != nil && !errors.Is(err, depotcopy.ErrNoBetter):
		return err
	}
	stored, ferr := im.find(ctx, d.Ref)
	if ferr != nil || stored == nil { // removed meanwhile
		return ferr
	}
	out.present(stored)
	if err != nil {
		out.Warnings = append(out.Warnings, fmt.Sprintf("%s: it is damaged, and the stored dump stays: %s", out.Path, d.First))
		return nil
	}
	if out.Result = Imported; d.First != "" {
		out.Reason = d.First
	}
	return nil
}

// foretellOwn says what an import would do.
func (out *Outcome) foretellOwn(d *depotcopy.Dump) {
	m := d.Manifest
	out.Result, out.Bytes, out.State, out.Reason = Would, d.Seen.Bytes, d.State, m.Reason
	if m.CrashTime != nil {
		out.CrashTime = *m.CrashTime
	}
	if d.State != dumpdir.StateArriving {
		return
	}
	switch out.Reason = dumpdir.ReasonGone; {
	case m.Plan == nil:
		out.State = dumpdir.StateLogOnly
	case d.What.Complete:
		out.State, out.Reason = dumpdir.StateComplete, ""
	default:
		out.State = dumpdir.StatePartial
	}
}

// isIn reports whether a path lies in the directory dir, or is it, whatever links lead there.
func isIn(path, dir string) bool {
	rel, err := filepath.Rel(realPath(dir), realPath(path))
	return dir != "" && err == nil && filepath.IsLocal(rel)
}

// realPath returns a path without links, as far as it exists.
func realPath(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	return path
}
