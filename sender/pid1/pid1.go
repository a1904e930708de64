// Package pid1 is corehaul-send as the first process of a capture kernel. It mounts the
// file systems that a process needs, loads the packed kernel modules, brings the network
// up, runs the job that sends the dump, unmounts the disks that the job used, reports its
// result on the console, and reboots.
//
// The machine always reboots (or powers off, or halts, as configured; or it starts a
// shell on the console, and reboots when people leave that). After an error or
// a panic of this program, a line on the console says why. After a hang, the watchdog
// resets the machine, if there is one (see watchdog). If the process dies, the kernel's
// panic timeout reboots; it is set first. The last line of a failed dump stays on the
// console for some seconds.
//
// Every line begins with "corehaul-send: ", and the last one reports the result. Package
// config describes the configuration and the words of the kernel command line that
// override it. Package initrd packs the initramfs.
//
// Main has to run as root and as PID 1 of an otherwise empty system, and is called once.
// Beside does the same work in a system that somebody else has set up, and ends the
// machine only when the dump is stored. Both trust their initramfs.
package pid1

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/corehaul/corehaul/sender/config"
	"github.com/corehaul/corehaul/sender/disk"
)

// failurePause is how long the last line of a failed dump stays on the console. It also slows down a machine that fails
// and reboots again and again.
const failurePause = 10 * time.Second

// deadlineGrace is how long after the deadline PID 1 still waits for the job, which may be waiting for a seal.
const deadlineGrace = 2 * time.Minute

// A Job sends the dump.
type Job func(context.Context, Env) Outcome

// Env is what a Job gets.
type Env struct {
	Config  *config.File
	Console *Console
	// Network waits until the network is up, or returns why it is not. It may be called more than once.
	// Without a target that needs the network, it returns at once.
	Network func(context.Context) error
	// Lines connects over the links of the network; see network.Manager. It is to be used after Network has returned nil.
	Lines Lines
	// Again receives a value when a link got an address, so that targets that did not answer may answer now.
	Again <-chan struct{}
	// Mount waits for a file system of a disk, mounts it, and returns the directory; see disk.Mounts. It may be called more than
	// once. All is unmounted when the job has returned.
	Mount func(context.Context, disk.Spec) (dir string, err error)
	// Alive must be called at least every few seconds while the job is not hung. Otherwise the watchdog, if there is
	// one, resets the machine. It is safe for concurrent use.
	Alive func()
	// Start is when PID 1 started.
	Start time.Time
}

// An Outcome is the result of a Job.
type Outcome struct {
	// Line describes the result in one line, without a full stop.
	Line string
	// Failed means that the dump, or the log if only that was wanted, was not stored.
	Failed bool
	// State is complete, partial or log-only, and Target where the dump is. Both are empty if nothing is stored.
	State, Target string
}

// env tells a program of the site, or a shell, about the result.
func (o *Outcome) env() []string {
	return []string{"COREHAUL_STATE=" + cmp.Or(o.State, "failed"), "COREHAUL_TARGET=" + o.Target, "COREHAUL_RESULT=" + o.Line}
}

// machine is what PID 1 needs of the system. Tests have another implementation.
type machine interface {
	mount() []error
	readFile(name string) ([]byte, error)
	console(name string) (*os.File, error)
	loadModule(path, params string) error
	// runProgram runs a program to its end or its limit. log gets the lines that it writes.
	runProgram(p program, log func(string, ...any)) error
	// shell runs the shell of the image on a terminal to its end.
	shell(terminal string, env []string) error
	network(c config.Network, log func(string, ...any), again func()) lines
	disks(log func(string, ...any)) disks
	// watchdog opens the machine's watchdog, which starts it. It returns nil if there is none.
	watchdog() (device, error)
	end(how string)
	pause(time.Duration)
}

// Lines are the links of the network; see network.Manager.
type Lines interface {
	Dial(ctx context.Context, d *net.Dialer, network, addr string) (net.Conn, error)
	Doubt(host string)
}

// lines are Lines that PID 1 brings up.
type lines interface {
	Lines
	Up(ctx context.Context) error
	Close()
}

// disks are the file systems of disks; see disk.Mounts.
type disks interface {
	Open(ctx context.Context, spec disk.Spec) (dir string, err error)
	Close() error
}

// Main runs job as PID 1 and then reboots, powers off or halts the machine, or lets people look at it first. It does not return.
func Main(job Job) {
	start := time.Now()
	r := &runner{sys: linux{}, job: job, start: start, console: NewConsole(os.Stdout)}
	r.finish(r.result(context.Background()))
	// Only if the kernel refused to end.
	for {
		time.Sleep(time.Hour)
	}
}

type runner struct {
	sys     machine
	job     Job
	start   time.Time
	console *Console
	cfg     *config.File
	dog     atomic.Pointer[watchdog]
	step    atomic.Pointer[string] // the current step, for messages
	memory  freeMemory
	// dogFailed is set once the console has said that the watchdog cannot be used.
	dogFailed bool
}

func (r *runner) alive() {
	r.dog.Load().alive()
	r.memory.look(r.sys.readFile, false)
}

// begin notes the current step, for the case that it hangs.
func (r *runner) begin(step string) {
	r.step.Store(&step)
	r.dog.Load().alive()
	r.memory.look(r.sys.readFile, true)
}

func (r *runner) doing() string {
	if step := r.step.Load(); step != nil {
		return *step
	}
	return "starting"
}

// result does all but the end.
func (r *runner) result(ctx context.Context) Outcome {
	r.cfg = config.Default()
	out := r.guarded(func() Outcome { return r.work(ctx) })
	if seen := r.memory.String(); seen != "" {
		r.console.Printf("%s", seen)
	}
	return out
}

// finish ends the machine as configured.
func (r *runner) finish(out Outcome) {
	dog := r.dog.Load()
	if r.cfg.After == "shell" {
		dog.keep()
	} else {
		// The watchdog must not reset a machine that is to stay down.
		dog.release(!out.Failed || r.cfg.After != "reboot")
	}
	after := map[string]string{"reboot": "rebooting", "poweroff": "powering off", "halt": "halting"}[r.cfg.After]
	switch {
	case r.cfg.After == "shell":
		r.runShell(out)
	case out.Failed:
		r.console.Printf("%s; %s in %.0f s", out.Line, after, failurePause.Seconds())
		r.sys.pause(failurePause)
	default:
		r.console.Printf("%s; %s", out.Line, after)
	}
	dog.end()
	r.sys.end(r.cfg.After)
}

// guarded turns a panic of f into a failed outcome.
func (r *runner) guarded(f func() Outcome) (out Outcome) {
	defer func() {
		if p := recover(); p != nil {
			r.console.Printf("internal error: %v", p)
			for line := range strings.Lines(string(debug.Stack())) {
				r.console.Printf("  %s", strings.TrimRight(line, "\n"))
			}
			out = Outcome{Line: fmt.Sprintf("dump failed: internal error: %v", p), Failed: true}
		}
	}()
	return f()
}

func (r *runner) work(ctx context.Context) Outcome {
	for _, err := range r.sys.mount() {
		r.console.Printf("warning: %v", err)
	}
	if err := r.configure(); err != nil {
		return failed(err)
	}
	r.loadModules()
	r.runPrograms("pre", r.cfg.Programs.Pre)

	r.begin("sending the dump")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up := r.startNetwork(ctx)
	mounts := r.sys.disks(r.console.Printf)
	env := Env{Config: r.cfg, Console: r.console, Start: r.start, Alive: r.alive, Mount: mounts.Open, Lines: up.lines, Again: up.again, Network: func(ctx context.Context) error {
		select {
		case <-up.done:
			return up.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	out := r.bounded(ctx, env)
	r.runPrograms("post", r.cfg.Programs.Post, out.env()...)
	cancel()
	<-up.done
	if up.lines != nil {
		up.lines.Close()
	}
	r.begin("unmounting")
	if err := mounts.Close(); err != nil {
		r.console.Printf("warning: %v", err)
	}
	return out
}

// bounded runs the job. It fails if the job has not returned deadlineGrace after the deadline.
func (r *runner) bounded(ctx context.Context, env Env) Outcome {
	result := make(chan Outcome, 1)
	go func() {
		result <- r.guarded(func() Outcome { return r.job(ctx, env) })
	}()
	var late <-chan time.Time
	if d := time.Duration(r.cfg.Deadline); d > 0 {
		late = time.After(time.Until(r.start.Add(d)) + deadlineGrace)
	}
	select {
	case out := <-result:
		return out
	case <-late:
		return failed(errors.New("the deadline passed long ago and the receiver has not sealed the dump"))
	}
}

func failed(err error) Outcome {
	return Outcome{Line: fmt.Sprintf("dump failed: %v", err), Failed: true}
}

// configure reads the configuration and the words of the kernel command line that override it.
func (r *runner) configure() error {
	text, err := r.sys.readFile(config.Path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	cfg, err := config.Parse(config.Path, text)
	if err != nil {
		return err
	}
	r.cfg = cfg
	words, err := r.sys.readFile(config.WordsPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.console.Printf("warning: %v", err)
	}
	cmdline, err := r.sys.readFile("/proc/cmdline")
	if err != nil {
		r.console.Printf("warning: %v", err)
	}
	for _, w := range cfg.Override(string(words) + " " + string(cmdline)) {
		r.console.Printf("warning: %s", w)
	}
	// The file names the keys by their paths on the system that packed them.
	cfg.Identity, cfg.SSHKey, cfg.KnownHosts = config.IdentityPath, config.SSHKeyPath, config.KnownHostsPath
	if cfg.Console != "" && cfg.Console != config.DefaultConsole {
		f, err := r.sys.console(cfg.Console)
		if err != nil {
			r.console.Printf("warning: console: %v", err)
		} else {
			r.console.Add(f)
		}
	}
	if len(cfg.To) == 0 {
		return errors.New("no receiver is configured")
	}
	return nil
}

// loadModules loads the packed modules in order. It goes on after a module that fails, for example for lack of hardware.
func (r *runner) loadModules() {
	r.startWatchdog()
	list, err := r.sys.readFile(config.ModulesPath)
	if err != nil {
		r.console.Printf("warning: modules: %v", err)
		return
	}
	n := 0
	for line := range strings.Lines(string(list)) {
		path, params, _ := strings.Cut(strings.TrimSpace(line), " ")
		if path == "" {
			continue
		}
		r.begin("loading " + path)
		err := r.sys.loadModule(path, params)
		if err != nil {
			r.console.Printf("warning: module %s: %v", path, err)
			continue
		}
		n++
		r.startWatchdog()
	}
	r.console.Printf("%d kernel modules loaded", n)
}

// networkState is the network while it comes up. err is set when done is closed. lines is nil if no target needs it.
type networkState struct {
	lines lines
	again chan struct{}
	done  chan struct{}
	err   error
}

// startNetwork brings the network up while the job opens the dump, if a target or a cluster needs it. It gives up when patience or deadline
// are over.
func (r *runner) startNetwork(ctx context.Context) *networkState {
	s := &networkState{done: make(chan struct{}), again: make(chan struct{}, 1)}
	if !slices.ContainsFunc(r.cfg.To, config.NeedsNetwork) && len(r.cfg.Network.FenceKdump) == 0 {
		close(s.done)
		return s
	}
	s.lines = r.sys.network(r.cfg.Network, func(format string, args ...any) {
		// The manager logs again and again while it waits.
		r.alive()
		r.console.Printf(format, args...)
	}, func() {
		select {
		case s.again <- struct{}{}:
		default: // it knows
		}
	})
	go func() {
		defer close(s.done)
		limit := r.cfg.Patience
		if d := r.cfg.Deadline; d > 0 {
			limit = min(limit, d)
		}
		ctx, cancel := context.WithDeadline(ctx, r.start.Add(time.Duration(limit)))
		defer cancel()
		s.err = s.lines.Up(ctx)
	}()
	return s
}
