package watch_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/receiver/watch"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/local"
	"github.com/corehaul/corehaul/vmcore/vmcoretest"
)

// TestPlanted walks past everything that is no file or directory, and past links, and takes what is sound.
func TestPlanted(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	outside := t.TempDir()
	secret := newRig(t)
	secret.put("s-202611250800/vmcore", vmcoretest.Sample(t, "makedumpfile-1.7.6-x86_64-zlib.kdump"), time.Hour)
	in := func(name string) string { return filepath.Join(r.dir, name) }
	err := errors.Join(
		os.MkdirAll(in("host/202611250800"), 0o700), os.MkdirAll(in("dumps/evil/20260101T000000Z-00000000"), 0o700),
		unix.Mkfifo(in("host/202611250800/vmcore"), 0o600), unix.Mkfifo(in("dumps/evil/20260101T000000Z-00000000/chunks"), 0o600),
		os.Symlink(secret.dir, in("link")), os.Symlink(filepath.Join(secret.dir, "s-202611250800"), in("host/s-202611250800")),
		os.Symlink(outside, in("dumps/outside")), os.Symlink("..", in("loop")), os.Symlink("/dev/zero", in("host/vmcore")),
		unix.Mknod(in("host/dump.202611250801"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))),
		os.Mkdir(in("n\x1b[2J\n\xff"), 0o700), os.WriteFile(in("n\x1b[2J\n\xff/vmcore"), make([]byte, 8192), 0o600),
	)
	if err != nil && !errors.Is(err, os.ErrPermission) { // only root makes devices
		t.Fatal(err)
	}
	m := r.machine("db1")
	r.send(m)
	r.look()
	r.later(2 * time.Hour)
	if e := r.one(dumpdir.StateComplete); e.ID != m.Meta.ID {
		t.Errorf("took %s", e.Ref)
	}
	if text := r.log.String(); strings.Contains(text, "\x1b") || strings.Contains(text, "\xff") {
		t.Error("a name reached the log as it is")
	}
}

// TestLie refuses a dump with a name that is no name of a host, with holes beyond all measure, and one that is damaged beyond recognition.
func TestLie(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	huge := r.send(r.machine("huge"))
	if err := os.Truncate(filepath.Join(huge, dumpdir.VMCoreName), 1<<42); err != nil {
		t.Fatal(err)
	}
	nothing := r.send(r.machine("nothing"))
	for _, name := range []string{dumpdir.JournalName, dumpdir.ManifestName} {
		if err := os.WriteFile(filepath.Join(nothing, name), make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		r.later(2 * time.Hour)
	}
	r.none()
	for _, part := range []string{"it has holes of", "it cannot be read"} {
		if n := len(r.log.Lines(part)); n != 1 {
			t.Errorf("%d lines say %q\n%s", n, part, r.log.String())
		}
	}
	if n := r.w.Status()[0].Failing; n != 2 {
		t.Errorf("%d fail", n)
	}
}

// TestLimits: the limits of a host bound what is taken of it, and hold up no other host. When there is room, the rest is taken.
func TestLimits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.limits.HostDumps = 2
	r.start()
	for range 4 {
		r.send(r.machine("junk"))
	}
	r.send(r.machine("web1"))
	r.look()
	if lines := r.log.Lines("took a dump"); len(lines) != 3 || !strings.Contains(lines[1], "host=web1") {
		t.Errorf("one host's dumps were taken at once: %q", lines)
	}
	count := func() (junk, other int) {
		for _, e := range r.list() {
			if e.Host == "junk" {
				junk++
			} else {
				other++
			}
		}
		return junk, other
	}
	if junk, other := count(); junk != 2 || other != 1 || len(r.log.Lines("max_host_dumps")) == 0 {
		t.Errorf("%d and %d dumps\n%s", junk, other, r.log.String())
	}
	r.limits.HostDumps = 4
	r.start()
	r.later(2 * time.Hour)
	if junk, other := count(); junk != 4 || other != 1 {
		t.Errorf("with more room, %d and %d dumps", junk, other)
	}
}

// TestNoRoom takes nothing that would use the reserve, and leaves nothing of it.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	space, err := r.store.Space(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.limits.Reserve = space.Total
	r.start()
	r.send(r.machine("db1"))
	r.look()
	r.later(time.Minute)
	r.none()
	if len(r.log.Lines("cannot take")) != 1 {
		t.Errorf("the log:\n%s", r.log.String())
	}
	if names, err := os.ReadDir(filepath.Join(r.data, "incoming", "db1")); len(names) != 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}

// TestBomb bounds what one look looks at, and still finds a dump behind many names: each look begins where the last one ended.
func TestBomb(t *testing.T) {
	t.Parallel()
	const names = 16
	r := newRig(t)
	r.w.SetNames(names)
	r.send(r.machine("db1"))
	for i := range names + 10 {
		if err := os.Mkdir(filepath.Join(r.dir, "dumps", fmt.Sprintf("junk%d", i)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	deep := filepath.Join(r.dir, strings.Repeat("d/", 100))
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	many := filepath.Dir(r.put("many-202611250800/vmcore", vmcoretest.Sample(t, "vmcore-6.1-x86_64-tiny.elf"), time.Hour))
	for i := range names + 1 {
		if err := os.WriteFile(filepath.Join(many, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.look()
	r.look()
	r.one(dumpdir.StateComplete)
	if n := len(r.log.Lines("more than 16 names")); n != 1 {
		t.Errorf("%d lines of the directory with many files\n%s", n, r.log.String())
	}
}

// TestUnreadable says once that the directory is not there, or may not be read, and finds it when it is.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.machine("db1")
	r.send(m)
	away := r.dir + ".away"
	if err := os.Rename(r.dir, away); err != nil {
		t.Fatal(err)
	}
	r.look()
	r.later(time.Hour)
	if st := r.w.Status()[0]; len(r.log.Lines("cannot read the watched directory")) != 1 || !strings.Contains(st.Error, "no such file") {
		t.Errorf("status %+v\n%s", st, r.log.String())
	}
	if err := os.Symlink(r.data, r.dir); err != nil {
		t.Fatal(err)
	}
	r.look()
	if st := r.w.Status()[0]; !strings.Contains(st.Error, "the data directory") {
		t.Errorf("a link to the data directory: %+v", st)
	}
	if err := errors.Join(os.Remove(r.dir), os.Rename(away, r.dir)); err != nil {
		t.Fatal(err)
	}
	r.look()
	r.one(dumpdir.StateComplete)
	if st := r.w.Status()[0]; len(r.log.Lines("can be read again")) != 1 || st.Error != "" {
		t.Errorf("status %+v\n%s", st, r.log.String())
	}
}

// TestOtherReceiver takes the dumps of another receiver's data directory, and not those that it removed.
func TestOtherReceiver(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	other, err := local.Open(t.Context(), r.dir, storage.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m := r.machine("db1")
	r.send(m)
	for _, name := range []string{"trash", "replaced", "damaged", "incoming/db2"} {
		from, to := r.send(r.machine("db2")), filepath.Join(r.dir, name, "x")
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.Rename(from, to)); err != nil {
			t.Fatal(err)
		}
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	r.look()
	if e := r.one(dumpdir.StateComplete); e.ID != m.Meta.ID {
		t.Errorf("took %s", e.Ref)
	}
}

// TestHang says once that a file system does not answer, and that it does again.
func TestHang(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	now := time.Now()
	r.w.Hang(now.Add(-30*time.Second), now)
	if len(r.log.Lines("does not answer")) != 0 {
		t.Error("a hang of 30 s was reported")
	}
	r.w.Hang(now.Add(-2*time.Minute), now)
	if st := r.w.Status()[0]; len(r.log.Lines("does not answer")) != 1 || st.Error == "" {
		t.Errorf("status %+v\n%s", st, r.log.String())
	}
	r.look()
	if st := r.w.Status()[0]; len(r.log.Lines("answers again")) != 1 || st.Error != "" {
		t.Errorf("status %+v\n%s", st, r.log.String())
	}
}

// TestDirs refuses directories that cannot be watched, before anything starts.
func TestDirs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, dirs := range [][]string{{"relative"}, {r.data}, {r.data + "/dumps"}, {"/"}, {r.dir, r.dir + "/"}, {r.dir, r.dir + "/below"}} {
		if _, err := watch.New(r.config(dirs...)); err == nil || !strings.Contains(err.Error(), "watch") {
			t.Errorf("%q: %v", dirs, err)
		}
	}
}

// TestMemory: a list of what was taken that cannot be read is put aside, and costs no dump.
func TestMemory(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	path := filepath.Join(r.data, "state", watch.MemoryName)
	r.send(r.machine("db1"))
	r.look()
	for _, text := range []string{"", "{", `{"version":2}`, `{"version":1,"paths":[]}`, "\xff", `{"version":1,"paths":{"a":null},"dumps":{"b":null}}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r.start()
		r.later(time.Hour)
		r.one(dumpdir.StateComplete)
	}
	if n := len(r.log.Lines("cannot be read; dumps that were removed since may come again")); n != 5 {
		t.Errorf("%d lines", n)
	}
	if _, err := os.Stat(path + ".damaged"); err != nil {
		t.Error(err)
	}
}

// TestKilled: what a killed receiver left of a dump that it was taking is deleted, and the dump is taken.
func TestKilled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := r.machine("db1")
	r.send(m)
	left := filepath.Join(r.data, "incoming", "db1", m.Meta.ID, "dump")
	if err := errors.Join(os.MkdirAll(left, 0o700), os.WriteFile(filepath.Join(left, "vmcore"), []byte("half"), 0o600)); err != nil {
		t.Fatal(err)
	}
	r.start()
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("after a start: %v", err)
	}
	r.look()
	r.verify(r.one(dumpdir.StateComplete).Ref)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.send(r.machine("db2"))
	r.w.Look(ctx)
	r.one(dumpdir.StateComplete)
}

// TestRun finds a dump that comes while it runs, and ends when it is told to.
func TestRun(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	sealed, stop := r.store.Subscribe(storage.Sealed)
	defer stop()
	go func() { ended <- r.w.Run(ctx) }()
	r.send(r.machine("db1"))
	select {
	case <-sealed:
	case <-time.After(5 * time.Minute):
		t.Fatal("a dump was not taken")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	r.one(dumpdir.StateComplete)
}
