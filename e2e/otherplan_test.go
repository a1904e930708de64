package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
)

// otherplanRelay passes on what a sender says, up to a number of bytes, and then nothing more.
type otherplanRelay struct {
	target string
	full   chan struct{} // closed when the bytes are used up
}

// otherplanListen starts a relay to the receiver, for one connection.
func otherplanListen(t *testing.T, s *judgesStore, limit int64) *otherplanRelay {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &otherplanRelay{target: "tls://" + l.Addr().String(), full: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.relay(ctx, l, strings.TrimPrefix(s.target, "tls://"), limit); err != nil && ctx.Err() == nil {
			t.Errorf("relay: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); _ = l.Close(); wg.Wait() })
	return r
}

// relay serves one connection until the sender is gone.
func (r *otherplanRelay) relay(ctx context.Context, l net.Listener, target string, limit int64) error {
	from, err := l.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	var d net.Dialer
	to, err := d.DialContext(ctx, "tcp", target)
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }()
	defer context.AfterFunc(ctx, func() { _ = from.Close() })()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_, _ = io.Copy(from, to)
	}()
	if _, err := io.CopyN(to, from, limit); err != nil {
		return errors.New("the sender was through before it could be cut off")
	}
	close(r.full)
	<-answered // which ends when the sender is killed and an answer cannot be passed on, or the receiver gives up
	return nil
}

// otherplanKill sends at a level until so many bytes are through, kills the sender, and returns once the receiver has
// stored what came.
func otherplanKill(t *testing.T, s *judgesStore, elf, level string, limit int64) (said string) {
	t.Helper()
	r := otherplanListen(t, s, limit)
	var errOut strings.Builder
	cmd := exec.CommandContext(t.Context(), judgesBin+"corehaul-send", "send", "--to", r.target, "--identity", s.identity, "--level", level, elf)
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.full:
	case <-t.Context().Done():
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	s.idle(t)
	return errOut.String()
}

// otherplanDump is what `corehaul ls --json` says of a dump.
type otherplanDump struct {
	ID       string `json:"id"`
	Manifest struct {
		State string `json:"state"`
		Plan  *struct {
			Level int `json:"level"`
		} `json:"plan"`
		Pages struct {
			Planned uint64 `json:"planned"`
			Present uint64 `json:"present"`
		} `json:"pages"`
		PanicLine string `json:"panic_line"`
	} `json:"manifest"`
}

// otherplanList returns the one dump that is listed.
func otherplanList(t *testing.T, s *judgesStore) otherplanDump {
	t.Helper()
	out, _ := judgesRun(t, 0, "corehaul", "ls", "--json", "--data", s.data)
	var list struct {
		Dumps []otherplanDump `json:"dumps"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Dumps) != 1 {
		t.Fatalf("%d dumps are listed, want one: %v\n%s", len(list.Dumps), err, out)
	}
	return list.Dumps[0]
}

// otherplanELF exports the dump of a store: raw pages, whatever the order in which they came.
func otherplanELF(t *testing.T, s *judgesStore) []byte {
	t.Helper()
	d, out := otherplanList(t, s), filepath.Join(t.TempDir(), "elf")
	judgesRun(t, 0, "corehaul", "verify", "--data", s.data, d.ID)
	judgesRun(t, 0, "corehaul", "export", "--data", s.data, "--format", "elf", "-o", out, d.ID)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// otherplanSame checks that the dump is the one of an undisturbed sender, page for page.
func otherplanSame(t *testing.T, s *judgesStore, elf, level string) {
	t.Helper()
	undisturbed := judgesServe(t)
	undisturbed.send(t, elf, level)
	want, got := otherplanELF(t, undisturbed), otherplanELF(t, s)
	if string(got) != string(want) {
		t.Errorf("%d bytes of ELF, an undisturbed dump has %d, and they differ", len(got), len(want))
	}
	if log, _ := judgesRun(t, 0, "corehaul", "log", "--data", s.data, otherplanList(t, s).ID); !strings.Contains(log, "Kernel panic") {
		t.Errorf("the log has no panic:\n%.200s", log)
	}
}

// TestOtherPlan kills senders of one crash at one level and sends at another.
func TestOtherPlan(t *testing.T) {
	c, err := lab.CaptureELF(t.Context(), lab.Scenario{Kernel: "6.1", CPU: "qemu64", Kexec: "c"})
	if err != nil {
		t.Fatal(err)
	}
	const little, more = 4 << 20, 10 << 20
	for _, tt := range []struct {
		name, first, second string
	}{
		{"31 then 1", "31", "1"},
		{"1 then 31", "1", "31"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := judgesServe(t)
			otherplanKill(t, s, c.ELF, tt.first, more)
			first := otherplanList(t, s)
			said := otherplanKill(t, s, c.ELF, tt.second, little)
			if !strings.Contains(said, "receiver: another plan of this dump is stored") {
				t.Errorf("the sender was not told of the other plan:\n%s", said)
			}
			if now := otherplanList(t, s); now.Manifest.Pages != first.Manifest.Pages || now.Manifest.Plan.Level != first.Manifest.Plan.Level {
				t.Errorf("the dump was %+v and is %+v", first.Manifest, now.Manifest)
			}
			judgesRun(t, 0, "corehaul-send", "send", "--to", s.target, "--identity", s.identity, "--level", tt.second, c.ELF)
			serveWait(t, "the seal", func() bool {
				sums, err := filepath.Glob(filepath.Join(s.data, "dumps", "*", "*", "SHA256SUMS"))
				return err == nil && len(sums) == 1
			})
			if now := otherplanList(t, s); now.Manifest.State != "complete" || now.Manifest.PanicLine == "" {
				t.Errorf("the dump is %+v", now.Manifest)
			}
			otherplanSame(t, s, c.ELF, tt.second)
		})
	}
	t.Run("neither ends", func(t *testing.T) { otherplanLeft(t, c.ELF) })
	t.Run("more of a complete one", func(t *testing.T) { otherplanMore(t, c.ELF, little) })
}

// otherplanLeft has both senders killed for good: the better one is sealed.
func otherplanLeft(t *testing.T, elf string) {
	t.Helper()
	s := judgesServe(t, "--resume-grace", "5s")
	otherplanKill(t, s, elf, "31", 4<<20)
	otherplanKill(t, s, elf, "1", 16<<20)
	serveWait(t, "the seal", func() bool { return otherplanList(t, s).Manifest.State == "partial" })
	if now := otherplanList(t, s); now.Manifest.Plan.Level != 1 {
		t.Errorf("the dump is %+v, want the one at level 1", now.Manifest)
	}
	judgesRun(t, 3, "corehaul", "verify", "--data", s.data, otherplanList(t, s).ID)
	if left, err := filepath.Glob(filepath.Join(s.data, "next", "*", "*")); err != nil || len(left) > 0 {
		t.Errorf("left beside the dump: %q, %v", left, err)
	}
}

// otherplanMore sends a complete dump again with more pages, and is killed on the way.
func otherplanMore(t *testing.T, elf string, limit int64) {
	t.Helper()
	s := judgesServe(t)
	s.send(t, elf, "31")
	otherplanKill(t, s, elf, "1", limit)
	if now := otherplanList(t, s); now.Manifest.State != "complete" || now.Manifest.Plan.Level != 31 {
		t.Errorf("the dump is %+v", now.Manifest)
	}
	judgesRun(t, 0, "corehaul-send", "send", "--to", s.target, "--identity", s.identity, "--level", "1", elf)
	otherplanSame(t, s, elf, "1")
}
