// Package cage makes the report of a dump in a child process that can do next to nothing, for a receiver that makes reports of
// dumps nobody has looked at. A dump is hostile input. What goes wrong in the child costs that dump its report and nothing else.
//
// The child is the same program once more (see Child). Before it looks at the dump, it confines itself:
//
//   - landlock(7): it reads the files of one dump directory, and no others. It writes none. Its only temporary file has no
//     name, and comes from the parent as an open descriptor.
//   - seccomp(2): it has the system calls of a Go program that reads files. It has no sockets, no new processes or threads, no files
//     opened for writing, no shared and no executable memory, and signals for itself only.
//   - No capabilities, no new privileges, no environment, no core dump, and ptrace(2) is only for root.
//   - Limits of memory and CPU time from the kernel; of time, of temporary disk space and of the length of the answer from
//     the parent. It has the lowest priority, and it is the first that the kernel ends when memory runs out.
//   - It ends with its parent, however that ends.
//
// The parent does not trust the answer either (see decode). A kernel without landlock (before 5.13, or not enabled) leaves the
// other layers, and Check says so. All other layers have to be there, or the child reads nothing.
//
// A Cage is safe for concurrent use.
package cage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/corehaul/corehaul/internal/printable"
	"github.com/corehaul/corehaul/triage"
)

// Self is the program for New in a program that calls Child: itself, even if an upgrade has replaced its file meanwhile. The
// answer of another version could be one that this version does not know.
const Self = "/proc/self/exe"

// Limits are what one report may take. A zero means the value of DefaultLimits. For a dump with many pages, CPU, Wall and Disk are
// larger (see sized).
type Limits struct {
	CPU    time.Duration // CPU time, in whole seconds
	Wall   time.Duration // from the start of the child to the end of its answer
	Memory uint64        // bytes of private writable memory, as RLIMIT_DATA counts
	Disk   uint64        // bytes on disk of the temporary file for the front of the vmcore
	Output uint64        // bytes of the answer
}

// DefaultLimits allow many times what the report of a real dump takes. 0.2 s of CPU time and 80 MiB were the most for machines with 1 to
// 1.5 GiB of memory; 128 MiB were enough as a limit, 96 MiB were not. Wall leaves time for a child that gets a fiftieth of a busy CPU.
var DefaultLimits = Limits{CPU: time.Minute, Wall: 10 * time.Minute, Memory: 512 << 20, Disk: 4 << 30, Output: 8 << 20}

// withDefaults replaces zeros.
func (l Limits) withDefaults() Limits {
	d := DefaultLimits
	if l.CPU == 0 {
		l.CPU = d.CPU
	}
	if l.Wall == 0 {
		l.Wall = d.Wall
	}
	if l.Memory == 0 {
		l.Memory = d.Memory
	}
	if l.Disk == 0 {
		l.Disk = d.Disk
	}
	if l.Output == 0 {
		l.Output = d.Output
	}
	return l
}

// FailedError says that a dump has no report, and that the dump is the reason: reading it took too much, or ended the child.
// All other errors are failures of the machine, or the context's.
type FailedError struct {
	Reason string // one printable line of at most 512 bytes
}

func (e *FailedError) Error() string { return e.Reason }

// maxReason is the length of a side file's texts (docs/layout.md, part 7).
const maxReason = 512

func failed(format string, args ...any) *FailedError {
	return &FailedError{Reason: printable.Clean(fmt.Sprintf(format, args...), maxReason)}
}

// Cage makes reports in children.
type Cage struct {
	program string
	limits  Limits
	log     *slog.Logger
}

// New returns a Cage whose children are program, Self or an absolute path, started with the arguments ChildCommand and those of Child.
func New(program string, limits Limits, log *slog.Logger) *Cage {
	return &Cage{program: program, limits: limits.withDefaults(), log: log}
}

// Dump makes the report of the dump in the directory dir, sealed or arriving. What cannot be read is in Report.Unread, also damage
// that was found on the way. The error is a *FailedError, a failure of the machine, or the context's. It matches fs.ErrNotExist if
// there is no such directory.
func (c *Cage) Dump(ctx context.Context, dir string) (*triage.Report, error) {
	return c.report(ctx, ofDump, dir)
}

// Log makes the report of the log in the directory of a dump, vmcore-dmesg.txt, and looks at nothing else. A log that shows no crash
// has a report that says so. Errors are those of Dump; a missing log is a *FailedError.
func (c *Cage) Log(ctx context.Context, dir string) (*triage.Report, error) {
	return c.report(ctx, ofLog, dir)
}

func (c *Cage) report(ctx context.Context, of, dir string) (*triage.Report, error) {
	_, a, err := c.run(ctx, of, dir)
	switch {
	case err != nil:
		return nil, err
	case a.Failed != "":
		return nil, failed("%s", a.Failed)
	case a.Report == nil:
		return nil, failed("the program that reads the dump gave no report")
	}
	return a.Report, nil
}

// Check starts a child that reads nothing. It logs a warning for each layer that this kernel lacks. The error says that no
// report can be made on this machine, and why.
func (c *Cage) Check(ctx context.Context) error {
	state, _, err := c.run(ctx, ofNothing, "/")
	var f *FailedError
	switch {
	case errors.As(err, &f):
		return fmt.Errorf("no crash reports can be made: %w", err)
	case err != nil:
		return err
	}
	c.tell(state)
	return nil
}

// tell warns of layers that are missing.
func (c *Cage) tell(s state) {
	if len(s.Missing) > 0 {
		c.log.Warn("crash reports are made with less protection: a dump that takes over the program that reads it can read all files of this user",
			"missing", strings.Join(s.Missing, ", "),
			"needs", "Linux 5.13 or later, landlock in the kernel parameter lsm= if that is set, and a container that allows landlock_create_ruleset(2)")
	}
}
