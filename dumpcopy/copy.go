package dumpcopy

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/vmcore/kdumpfile"
)

// Copy is the copy of a dump file into a dump directory.
type Copy struct {
	W     *dumpdir.Writer
	Codec kdumpfile.Codec // of Open
	// Charge counts n bytes of the dump before they are written. Its error ends the copy.
	Charge func(ctx context.Context, n uint64) error
	// Keep keeps the file as it is beside the dump, and returns its name there. A *NotKeptError says that it does not, and
	// syscall.ENOSPC that it cannot.
	Keep func(ctx context.Context) (name string, err error)
	// Ready, if set, is called before the dump is sealed. Its error leaves the dump without a seal.
	Ready func() error
	// Describe, if set, changes the facts of the dump after the file has set its own.
	Describe func(m *dumpdir.Meta)
	// Progress, if set, is told how many of all chunks were read.
	Progress func(done, total uint64)
}

// NotKeptError says why a file is not kept beside its dump.
type NotKeptError struct{ Reason string }

// Error returns the reason.
func (e *NotKeptError) Error() string { return e.Reason }

// Run copies the log, unless the dump has one, and all pages of s, and seals the dump. It goes on with an earlier copy. An error leaves
// the dump so that a later Run can go on.
func (c *Copy) Run(ctx context.Context, s *Source) (dumpdir.Result, error) {
	if err := c.describe(ctx, s); err != nil {
		return dumpdir.Result{}, err
	}
	p, err := c.pages(ctx, s)
	if err != nil {
		if _, planned := c.W.Plan(); !planned {
			return c.Unreadable(ctx, s.file, err)
		}
		if errors.Is(err, errOtherPlan) {
			return c.sealDiffering(ctx, errOtherPlan.Error())
		}
		return dumpdir.Result{}, err
	}
	lack := p.lacks()
	if lack != "" && (len(s.odd) > 0 || p.over) {
		return c.sealDiffering(ctx, lack)
	}
	if err := c.ready(); err != nil {
		return dumpdir.Result{}, err
	}
	if lack == "" {
		return c.W.Seal(ctx, "")
	}
	return c.W.SealPartial(ctx, lack)
}

func (c *Copy) ready() error {
	if c.Ready == nil {
		return nil
	}
	return c.Ready()
}

// describe stores the facts of the dump, and the log in its memory if there is no other log.
func (c *Copy) describe(ctx context.Context, s *Source) error {
	line := ""
	if c.W.Manifest().Bytes.Log == 0 {
		var err error
		if line, err = s.storeLog(ctx, c.W); err != nil {
			return err
		}
	}
	facts := s.Machine()
	return c.W.UpdateMeta(func(m *dumpdir.Meta) {
		m.Release, m.Nodename, m.Machine, m.CrashTime = facts.Utsname.Release, facts.Utsname.Nodename, facts.Utsname.Machine, facts.CrashTime
		m.BuildID, _ = s.img.Info().VMCOREINFO.String("BUILD-ID")
		m.Sender = s.describe()
		if line != "" {
			m.PanicLine = line
		}
		if c.Describe != nil {
			c.Describe(m)
		}
	})
}

// Unreadable seals a dump whose pages cannot be read because of cause. A file that did not break off is kept beside it, because another
// program may read it. If OfDump does not accept cause, it is returned.
func (c *Copy) Unreadable(ctx context.Context, f File, cause error) (dumpdir.Result, error) {
	if !OfDump(cause) {
		return dumpdir.Result{}, cause
	}
	if err := c.ready(); err != nil {
		return dumpdir.Result{}, err
	}
	if !f.Whole {
		return c.W.Seal(ctx, fmt.Sprintf("nothing of the dump can be read: %s (%v)", f.Broken, cause))
	}
	reason := "the dump cannot be read: " + cause.Error()
	name, err := c.Keep(ctx)
	notKept, isNotKept := errors.AsType[*NotKeptError](err)
	switch {
	case isNotKept:
		reason += "; it is not kept: " + notKept.Reason
	case err != nil:
		return dumpdir.Result{}, err
	default:
		reason += fmt.Sprintf("; it is kept as %s/%s", dumpdir.KeptDirName, name)
	}
	return c.W.Seal(ctx, reason)
}

// sealDiffering seals a dump that may differ from its file, and keeps the file if that is possible.
func (c *Copy) sealDiffering(ctx context.Context, lack string) (dumpdir.Result, error) {
	if err := c.ready(); err != nil {
		return dumpdir.Result{}, err
	}
	name, err := c.Keep(ctx)
	notKept, isNotKept := errors.AsType[*NotKeptError](err)
	switch {
	case errors.Is(err, syscall.ENOSPC):
		lack += "; there is no room to keep the file itself"
	case isNotKept:
		lack += "; the file itself is not kept: " + notKept.Reason
	case err != nil:
		return dumpdir.Result{}, err
	default:
		lack += fmt.Sprintf("; the file itself is kept as %s/%s", dumpdir.KeptDirName, name)
	}
	return c.W.SealPartial(ctx, lack)
}
