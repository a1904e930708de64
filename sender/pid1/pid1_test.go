package pid1

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/corehaul/corehaul/sender/config"
	"github.com/corehaul/corehaul/sender/disk"
)

// fake is a machine that remembers what was done to it.
type fake struct {
	files    map[string]string
	mountErr error
	netErr   error
	netWait  time.Duration
	loaded   []string
	ended    []string
	paused   time.Duration
	stopped  bool

	unmounted int // how often the disks were unmounted

	dog         *fakeDog
	dogErr      error
	dogModule   string // that brings it; empty: it is there from the start
	hang        string // a module whose loading takes an hour
	rebootTakes time.Duration

	programs []program // that ran

	terminal string   // of the shell that ran
	shellEnv []string // of that
	shellErr error
}

func (f *fake) watchdog() (device, error) {
	if f.dogErr != nil {
		return nil, f.dogErr
	}
	if f.dog == nil || f.dogModule != "" && !strings.Contains(strings.Join(f.loaded, "\n"), f.dogModule) {
		return nil, nil // as on a machine without one
	}
	return f.dog.open(), nil
}

func (f *fake) mount() []error {
	if f.mountErr != nil {
		return []error{f.mountErr}
	}
	return nil
}

func (f *fake) readFile(name string) ([]byte, error) {
	if text, ok := f.files[name]; ok {
		return []byte(text), nil
	}
	return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
}

func (f *fake) console(string) (*os.File, error) { return nil, os.ErrPermission }

func (f *fake) loadModule(path, params string) error {
	if strings.Contains(path, "bad") {
		return errors.New("no such device")
	}
	if path == f.hang {
		time.Sleep(time.Hour)
	}
	f.loaded = append(f.loaded, path+"|"+params)
	return nil
}

// runProgram kills the program /bin/hang after its limit.
func (f *fake) runProgram(p program, _ func(string, ...any)) error {
	f.programs = append(f.programs, p)
	if p.name != "/bin/hang" {
		return nil
	}
	time.Sleep(p.limit)
	return errors.New("killed")
}

// shell is one that people leave after a day.
func (f *fake) shell(terminal string, env []string) error {
	f.terminal, f.shellEnv = terminal, env
	if f.shellErr == nil {
		time.Sleep(24 * time.Hour)
	}
	return f.shellErr
}

func (f *fake) disks(func(string, ...any)) disks { return f }

// Open and Close are those of the machine's disks.
func (f *fake) Open(context.Context, disk.Spec) (string, error) { return "/run/fs", nil }

func (f *fake) Close() error {
	f.unmounted++
	return nil
}

func (f *fake) network(config.Network, func(string, ...any), func()) lines { return &fakeLines{f: f} }

// fakeLines are the fake's network.
type fakeLines struct {
	Lines
	f *fake
}

func (l *fakeLines) Up(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(l.f.netWait):
		return l.f.netErr
	}
}

func (l *fakeLines) Close() { l.f.stopped = true }

func (f *fake) end(how string) {
	f.ended = append(f.ended, how)
	time.Sleep(f.rebootTakes)
}

func (f *fake) pause(d time.Duration) {
	f.paused += d
	time.Sleep(d)
}

func newFake(conf string) *fake {
	return &fake{files: map[string]string{
		config.Path: conf, "/proc/cmdline": "console=ttyS0 corehaul.level=1 corehaul.bogus\n",
		config.ModulesPath: "/lib/modules/a.ko x=1 y\n/lib/modules/bad.ko \n\n/lib/modules/b.ko \n",
	}}
}

const goodConfig = "to = [\"tls://192.0.2.1:1\"]\nafter = \"poweroff\"\n"

// boot runs a machine to its end and returns what stands on its console.
func boot(t *testing.T, f *fake, job Job) []string {
	t.Helper()
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		r := &runner{sys: f, job: job, start: time.Now(), console: NewConsole(&out)}
		r.finish(r.result(t.Context()))
		synctest.Wait()
	})
	return strings.Split(strings.TrimSpace(out.String()), "\n")
}

func TestBoot(t *testing.T) {
	f := newFake(goodConfig)
	var got *config.File
	lines := boot(t, f, func(ctx context.Context, env Env) Outcome {
		got = env.Config
		if err := env.Network(ctx); err != nil {
			return failed(err)
		}
		return Outcome{Line: "dump complete: 1 page"}
	})
	if got.Level != 1 || got.Identity != config.IdentityPath {
		t.Errorf("the job got %+v", got)
	}
	if want := "/lib/modules/a.ko|x=1 y /lib/modules/b.ko|"; strings.Join(f.loaded, " ") != want {
		t.Errorf("loaded %q", f.loaded)
	}
	if last := lines[len(lines)-1]; last != "corehaul-send: dump complete: 1 page; powering off" {
		t.Errorf("last line %q", last)
	}
	if strings.Join(f.ended, " ") != "poweroff" || f.paused != 0 || !f.stopped {
		t.Errorf("ended %q after a pause of %v, network stopped: %v", f.ended, f.paused, f.stopped)
	}
	for _, want := range []string{"warning: kernel command line: corehaul.bogus", "warning: module /lib/modules/bad.ko", "2 kernel modules loaded"} {
		if !strings.Contains(strings.Join(lines, "\n"), want) {
			t.Errorf("the console lacks %q: %q", want, lines)
		}
	}
}

// TestFailures holds the one rule: whatever fails, the last line says so and the
// machine ends, once.
func TestFailures(t *testing.T) {
	fine := func(context.Context, Env) Outcome { return Outcome{Line: "dump complete"} }
	for _, tc := range []struct {
		name   string
		change func(*fake)
		job    Job
		last   string
		how    string
	}{
		{"no configuration", func(f *fake) { delete(f.files, config.Path) }, fine, "dump failed: configuration", "reboot"},
		{"bad configuration", func(f *fake) { f.files[config.Path] = "what = 1\n" }, fine, "send.toml:1", "reboot"},
		{"no receiver", func(f *fake) { f.files[config.Path] = "" }, fine, "no receiver", "reboot"},
		{"no network", func(f *fake) { f.netErr = errors.New("no carrier") }, func(ctx context.Context, env Env) Outcome {
			return failed(env.Network(ctx))
		}, "no carrier", "poweroff"},
		{"network too late", func(f *fake) { f.netWait = 24 * time.Hour }, func(ctx context.Context, env Env) Outcome {
			return failed(env.Network(ctx))
		}, "deadline exceeded", "poweroff"},
		{"network later than the deadline", func(f *fake) {
			f.files["/proc/cmdline"] = "corehaul.deadline=1m"
			f.netWait = 2 * time.Minute
		}, func(ctx context.Context, env Env) Outcome {
			return failed(env.Network(ctx))
		}, "deadline exceeded", "poweroff"},
		{"panic", nil, func(context.Context, Env) Outcome { panic("a bug") }, "internal error: a bug", "poweroff"},
		{"job hangs past its deadline", func(f *fake) { f.files["/proc/cmdline"] = "corehaul.deadline=1m" }, func(ctx context.Context, _ Env) Outcome {
			<-ctx.Done()
			return Outcome{Line: "too late"}
		}, "deadline passed long ago", "poweroff"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(goodConfig)
			if tc.change != nil {
				tc.change(f)
			}
			lines := boot(t, f, tc.job)
			last := lines[len(lines)-1]
			if !strings.Contains(last, tc.last) || !strings.HasPrefix(last, "corehaul-send: dump failed: ") {
				t.Errorf("last line %q, want %q", last, tc.last)
			}
			if len(f.ended) != 1 || f.ended[0] != tc.how {
				t.Errorf("ended %q, want %q", f.ended, tc.how)
			}
			if f.paused != failurePause {
				t.Errorf("the failure was shown for %v, want %v", f.paused, failurePause)
			}
		})
	}
}

func TestMissingExtrasAreNotFatal(t *testing.T) {
	f := newFake(goodConfig + "console = \"/dev/ttyS9\"\n")
	f.mountErr = errors.New("mount /sys: no such device")
	delete(f.files, "/proc/cmdline")
	delete(f.files, config.ModulesPath)
	lines := boot(t, f, func(context.Context, Env) Outcome { return Outcome{Line: "dump complete"} })
	if last := lines[len(lines)-1]; last != "corehaul-send: dump complete; powering off" {
		t.Errorf("last line %q of %q", last, lines)
	}
}

func TestConsoleStaysOnOneLine(t *testing.T) {
	var out bytes.Buffer
	NewConsole(&out).Printf("peer: %s", "all\nis \x1b[2Jwell")
	if got := out.String(); strings.Count(got, "\n") != 1 || strings.Contains(got, "\x1b") {
		t.Errorf("got %q", got)
	}
}

// TestDisks: a job gets the file systems of disks, and they are unmounted in the end, also after a hang. Without a target that
// needs the network, there is none.
func TestDisks(t *testing.T) {
	for name, hangs := range map[string]bool{"done": false, "hung": true} {
		f := newFake("to = [\"file:///crash?fs=LABEL=dumps\"]\nafter = \"poweroff\"\ndeadline = \"1m\"\n")
		f.netErr = errors.New("no carrier")
		lines := boot(t, f, func(ctx context.Context, env Env) Outcome {
			dir, err := env.Mount(ctx, disk.Spec{Label: "dumps"})
			if err := errors.Join(err, env.Network(ctx)); err != nil || dir != "/run/fs" {
				t.Errorf("%s: %s, %v", name, dir, err)
			}
			if hangs {
				<-ctx.Done()
			}
			return Outcome{Line: "dump complete"}
		})
		if f.unmounted != 1 {
			t.Errorf("%s: unmounted %d times; %q", name, f.unmounted, lines)
		}
	}
}

// TestFenceNeedsNetwork: a cluster hears of a dump that goes to a disk.
func TestFenceNeedsNetwork(t *testing.T) {
	f := newFake("to = [\"file:///crash?fs=LABEL=dumps\"]\n[network]\nfence_kdump = [\"192.0.2.2:7410\"]\n")
	boot(t, f, func(context.Context, Env) Outcome { return Outcome{Line: "dump complete"} })
	if !f.stopped {
		t.Error("the network was not brought up")
	}
}
