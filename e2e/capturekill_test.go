package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
)

const (
	// captureKillRate is the speed of the guest's line in kB/s: slow enough that the sender has told of stored
	// pages, which it does every few seconds, before the dump is over.
	captureKillRate = 1_000
	// captureKillAfter is how much of vmcore the second sender brings until the receiver is killed, in bytes.
	captureKillAfter = 1 << 20
	// captureKillGoesOn is what the guest says when the second sender goes on with the dump of the first.
	captureKillGoesOn = "lab: the second sender goes on"
)

// captureKillScript kills a sender with SIGKILL when some of its pages are stored, lets another end the dump, and
// a third send the same /proc/vmcore once more, over TLS. Its arguments are the
// targets of the first two and of the third.
const captureKillScript = `
send="corehaul-send send --patience 5m --level 31 --progress 1s"
$send %[1]s /proc/vmcore 2> /root/said &
until grep -q 'sending: [1-9]' /root/said; do
	sleep 0.2
	kill -0 $! || break
done
kill -9 $!
wait $!
code=$?
cat /root/said
echo "lab: the first sender ended with $code"
$send %[1]s /proc/vmcore 2> /root/said &
until grep -q 'the receiver has [1-9]' /root/said; do
	sleep 0.2
	kill -0 $! || break
done
echo "` + captureKillGoesOn + `"
wait $!
code=$?
cat /root/said
[ $code = 0 ] || exit 2
$send %[2]s /proc/vmcore 2> /root/said
code=$?
cat /root/said
[ $code = 0 ] || exit 3
`

// captureKillHad is what a sender says that goes on with a dump.
var captureKillHad = regexp.MustCompile(`corehaul-send: (\d+) pages .* the receiver has (\d+) of them`)

// captureKill is a dump on its way from a guest over SSH.
type captureKill struct {
	target     string // HOST:PORT on this host
	user, path string
	key, known string           // the key's file, and the text of known_hosts for target
	data       string           // the store
	restart    func(*testing.T) // kills the receiver and starts it again
	dump       func() serveDump // what is in the store
}

// TestCaptureKill kills the sender, in a real capture kernel, and the receiver in the middle of one dump: over SSH to
// a receiver, and over SFTP to OpenSSH's server. Page by page the dump is what the same kernel then sends over TLS.
func TestCaptureKill(t *testing.T) {
	t.Run("ssh", func(t *testing.T) {
		t.Parallel() // it waits more than it computes
		s, key := sshSendServe(t, captureHost)
		known, _ := judgesRun(t, 0, "corehaul", "known-hosts", s.sshAddress(), "--data", s.data)
		captureKillRun(t, captureKill{
			target: s.sshAddress(), user: "dumps", key: key, known: known, data: s.data,
			restart: func(t *testing.T) { t.Helper(); s.kill(t); s.start(t) },
			dump:    func() serveDump { return s.one(t) },
		})
	})
	t.Run("sftp", func(t *testing.T) {
		t.Parallel() // it waits more than it computes
		s := sshTargetServer(t)
		known, err := s.Known(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "store")
		captureKillRun(t, captureKill{
			target: s.Addr, user: "root", path: dir, key: s.UserKeys["ed25519"], known: known, data: dir,
			restart: func(t *testing.T) {
				t.Helper()
				if err := s.Kill(); err != nil {
					t.Fatal(err)
				}
				if err := s.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
			},
			dump: func() serveDump {
				list := sftpList(t, dir)
				if len(list) != 1 {
					t.Fatalf("the store has %d dumps, want 1", len(list))
				}
				return list[0]
			},
		})
	})
}

// captureKillRun lets a machine panic and its dump be disturbed, and looks at what came.
func captureKillRun(t *testing.T, c captureKill) {
	t.Helper()
	l := newLine(t, c.target)
	l.slow(t, captureKillRate)
	calm := judgesServe(t)
	initrd := captureKillInitrd(t, c, l.Listen, calm)
	ended := make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), captureTimeout)
	defer cancel()
	var run *lab.Run
	var err error
	goesOn := make(chan struct{})
	onLine := func(line string) {
		if strings.Contains(line, captureKillGoesOn) {
			close(goesOn)
		}
	}
	go func() {
		defer close(ended)
		run, err = lab.RunSender(ctx, lab.Scenario{Kernel: "6.1"}, initrd, lab.SenderOptions{OnLine: onLine})
	}()
	select {
	case <-ended:
		t.Fatalf("the machine ended before its second sender went on: %v\n%s", err, captureKillSaid(run))
	case <-goesOn:
	}
	arriving := &killDump{store: &judgesStore{data: c.data}}
	for until := arriving.arrived(t) + captureKillAfter; arriving.arrived(t) < until; {
		select {
		case <-ended:
			t.Fatalf("the machine ended before the receiver was killed: %v\n%s", err, captureKillSaid(run))
		case <-time.After(20 * time.Millisecond):
		}
	}
	c.restart(t)
	<-ended
	if err != nil {
		t.Fatal(err)
	}
	said := captureKillSaid(run)
	t.Logf("%v of QEMU; the capture kernel said\n%s", run.Duration.Round(time.Second), said)
	captureKillCheck(t, said)
	calm.checkCaptured(t)
	one := c.dump()
	if one.Manifest.State != "complete" {
		t.Errorf("the dump is %s, want complete", one.Manifest.State)
	}
	judgesRun(t, 0, "corehaul", "verify", "--data", c.data, one.ID)
	got, want := judgesPages(t, filepath.Join(one.Path, "vmcore")), judgesPages(t, filepath.Join(calm.one(t).Path, "vmcore"))
	if got != want {
		t.Errorf("over SSH %+v, over TLS %+v", got, want)
	}
}

// captureKillInitrd packs a capture initramfs with a shell whose sender can be killed: as /init it cannot.
func captureKillInitrd(t *testing.T, c captureKill, listen string, calm *judgesStore) string {
	t.Helper()
	k, err := lab.GetKernel(t.Context(), "6.1")
	if err != nil {
		t.Fatal(err)
	}
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	port := capturePort(t, listen)
	known := strings.NewReplacer("127.0.0.1", lab.HostFromGuest, capturePort(t, c.target), port).Replace(c.known)
	ssh := fmt.Sprintf("--to ssh://%s@%s:%s%s --ssh-key /root/.ssh/key --known-hosts /root/.ssh/known_hosts", c.user, lab.HostFromGuest, port, c.path)
	tls := fmt.Sprintf("--to tls://%s:%s --identity /root/.ssh/identity.pem", lab.HostFromGuest, capturePort(t, calm.address(t)))
	initrd := filepath.Join(t.TempDir(), "capture.img")
	if err := lab.StockInitrd(t.Context(), k, initrd, fmt.Sprintf(captureKillScript, ssh, tls), map[string]string{
		"/bin/corehaul-send": read(captureSender), "/root/.ssh/key": read(c.key), "/root/.ssh/known_hosts": known,
		"/root/.ssh/identity.pem": read(calm.issue(t, captureHost)),
	}); err != nil {
		t.Fatal(err)
	}
	return initrd
}

// captureKillSaid is what the programs wrote on the console, without the kernel's lines.
func captureKillSaid(run *lab.Run) string {
	if run == nil {
		return ""
	}
	var said strings.Builder
	for line := range strings.Lines(run.CaptureConsole()) {
		if strings.HasPrefix(line, "corehaul-send: ") || strings.HasPrefix(line, "lab: ") {
			said.WriteString(line)
		}
	}
	return said.String()
}

// captureKillCheck checks that the first sender died of SIGKILL, and that the dump went on where it was after its death
// and after the receiver's.
func captureKillCheck(t *testing.T, said string) {
	t.Helper()
	for _, want := range []string{"lab: the first sender ended with 137", "lab: kdump script ended with 0"} {
		if !strings.Contains(said, want) {
			t.Errorf("the console does not say %q", want)
		}
	}
	var resumed int
	for _, m := range captureKillHad.FindAllStringSubmatch(said, -1) {
		pages, err1 := strconv.Atoi(m[1])
		had, err2 := strconv.Atoi(m[2])
		if err1 != nil || err2 != nil {
			t.Fatalf("%q: %v, %v", m[0], err1, err2)
		}
		if 0 < had && had < pages {
			resumed++
		}
	}
	if resumed < 2 {
		t.Errorf("the dump went on in the middle %d times, want 2: after the sender's death and the receiver's", resumed)
	}
}
