package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
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
	// captureKillGoesOn is what the guest says when the second sender goes on with the dump of the first, after the way's name.
	captureKillGoesOn = ": the second sender goes on"
	// captureKillBegins is what it says before the first sender.
	captureKillBegins = ": begins"
)

// captureKillScript has a function that sends to a target: it kills a sender with SIGKILL when some of its pages are stored, and lets
// another end the dump. It empties the file before each sender, which may be slow to open it: the words of the one before would count.
const captureKillScript = `
send="corehaul-send send --patience 5m --level 31 --progress 1s"
disturbed() {
	echo "lab: $1` + captureKillBegins + `"
	: > /root/said
	$send $2 /proc/vmcore 2> /root/said &
	until grep -q 'sending: [1-9]' /root/said; do
		sleep 0.2
		kill -0 $! || break
	done
	kill -9 $!
	wait $!
	code=$?
	cat /root/said
	echo "lab: the first sender ended with $code"
	: > /root/said
	$send $2 /proc/vmcore 2> /root/said &
	until grep -q 'the receiver has [1-9]' /root/said; do
		sleep 0.2
		kill -0 $! || break
	done
	echo "lab: $1` + captureKillGoesOn + `"
	wait $!
	code=$?
	cat /root/said
	[ $code = 0 ] || exit 2
}
`

// captureKillCalm sends the same /proc/vmcore once more, undisturbed, to its argument.
const captureKillCalm = `
$send %s /proc/vmcore 2> /root/said
code=$?
cat /root/said
[ $code = 0 ] || exit 3
`

// captureKillHad is what a sender says that goes on with a dump.
var captureKillHad = regexp.MustCompile(`corehaul-send: (\d+) pages .* the receiver has (\d+) of them`)

// captureKill is one way of a dump from a guest.
type captureKill struct {
	name    string
	line    *line
	to      string            // the target and its keys, in the guest
	files   map[string]string // those of the guest, by their names there
	data    string            // the store
	restart func(*testing.T)  // kills the server and starts it again
}

// TestCaptureKill kills the sender, in a real capture kernel, and the server in the middle of a dump: over SSH to a receiver, over SFTP
// to OpenSSH, and over NFS to Ganesha, one after the other in one guest. Page by page each is what the same kernel then sends over TLS.
// Its time goes into the locks of killed senders, which have to become stale.
func TestCaptureKill(t *testing.T) {
	t.Parallel() // it waits more than it computes
	ways := []captureKill{captureKillSSH(t), captureKillSFTP(t), captureKillNFS(t)}
	calm := judgesServe(t)
	files := map[string]string{"/bin/corehaul-send": captureKillRead(t, captureSender), "/root/.ssh/identity.pem": captureKillRead(t, calm.issue(t, captureHost))}
	script := captureKillScript
	for _, w := range ways {
		w.line.slow(t, captureKillRate)
		maps.Copy(files, w.files)
		script += fmt.Sprintf("disturbed %s %q\n", w.name, w.to)
	}
	script += fmt.Sprintf(captureKillCalm, fmt.Sprintf("--to tls://%s:%s --identity /root/.ssh/identity.pem", lab.HostFromGuest, capturePort(t, calm.address(t))))
	said := captureKillRun(t, script, files, ways)
	calm.checkCaptured(t)
	want := judgesPages(t, filepath.Join(calm.one(t).Path, "vmcore"))
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			_, part, _ := strings.Cut(said, "lab: "+w.name+captureKillBegins)
			part, _, _ = strings.Cut(part, captureKillBegins)
			captureKillCheck(t, part)
			sftpCheck(t, w.data, want)
		})
	}
}

// captureKillSSH is the way to a receiver.
func captureKillSSH(t *testing.T) captureKill {
	t.Helper()
	s, key := sshSendServe(t, captureHost)
	known, _ := judgesRun(t, 0, "corehaul", "known-hosts", s.sshAddress(), "--data", s.data)
	w := captureKillKeys(t, "ssh", "dumps", s.sshAddress(), "", key, known)
	w.data, w.restart = s.data, func(t *testing.T) { t.Helper(); s.kill(t); s.start(t) }
	return w
}

// captureKillSFTP is the way to a server without a receiver.
func captureKillSFTP(t *testing.T) captureKill {
	t.Helper()
	s := sshTargetServer(t)
	known, err := s.Known(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "store")
	w := captureKillKeys(t, "sftp", "root", s.Addr, dir, s.UserKeys["ed25519"], known)
	w.data, w.restart = dir, func(t *testing.T) {
		t.Helper()
		if err := errors.Join(s.Kill(), s.Start(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// captureKillKeys is a way to an SSH server, with the keys of a login.
func captureKillKeys(t *testing.T, name, user, addr, path, key, known string) captureKill {
	t.Helper()
	l := newLine(t, addr)
	port := capturePort(t, l.Listen)
	known = strings.NewReplacer("127.0.0.1", lab.HostFromGuest, capturePort(t, addr), port).Replace(known)
	keyFile, knownFile := "/root/.ssh/"+name, "/root/.ssh/known_hosts_"+name
	return captureKill{
		name: name, line: l,
		to:    fmt.Sprintf("--to ssh://%s@%s:%s%s --ssh-key %s --known-hosts %s", user, lab.HostFromGuest, port, path, keyFile, knownFile),
		files: map[string]string{keyFile: captureKillRead(t, key), knownFile: known},
	}
}

// captureKillNFS is the way to an NFS server.
func captureKillNFS(t *testing.T) captureKill {
	t.Helper()
	export := t.TempDir()
	g := nfsServer(t, lab.GaneshaExport{Path: export})
	l := newLine(t, g.Addr)
	dir := filepath.Join(export, "store")
	return captureKill{
		name: "nfs", line: l, data: dir,
		to: "--to " + nfsTarget(t, g, net.JoinHostPort(lab.HostFromGuest, capturePort(t, l.Listen)), dir),
		restart: func(t *testing.T) {
			t.Helper()
			g.Kill()
			if err := g.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
	}
}

// captureKillRead returns the contents of a file.
func captureKillRead(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// captureKillRun lets a machine panic and disturbs its dumps. It returns what the senders said.
func captureKillRun(t *testing.T, script string, files map[string]string, ways []captureKill) string {
	t.Helper()
	k, err := lab.GetKernel(t.Context(), "6.1")
	if err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(t.TempDir(), "capture.img")
	if err := lab.StockInitrd(t.Context(), k, initrd, script, files); err != nil {
		t.Fatal(err)
	}
	goesOn := make(chan string, len(ways))
	onLine := func(line string) {
		if before, ok := strings.CutSuffix(strings.TrimSpace(line), captureKillGoesOn); ok {
			goesOn <- before
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), captureTimeout)
	defer cancel()
	ended := make(chan struct{})
	var run *lab.Run
	var runErr error
	go func() {
		defer close(ended)
		run, runErr = lab.RunSender(ctx, lab.Scenario{Kernel: "6.1"}, initrd, lab.SenderOptions{OnLine: onLine})
	}()
	for _, w := range ways {
		select {
		case <-ended:
			t.Fatalf("the machine ended before its second sender went on over %s: %v\n%s", w.name, runErr, captureKillSaid(run))
		case <-goesOn:
		}
		arriving := &killDump{store: &judgesStore{data: w.data}}
		for until := arriving.arrived(t) + captureKillAfter; arriving.arrived(t) < until; {
			select {
			case <-ended:
				t.Fatalf("the machine ended before the server was killed that it sent to over %s: %v\n%s", w.name, runErr, captureKillSaid(run))
			case <-time.After(20 * time.Millisecond):
			}
		}
		w.restart(t)
	}
	<-ended
	said := captureKillSaid(run)
	if runErr != nil || !strings.Contains(said, "lab: kdump script ended with 0") {
		t.Fatalf("%v; the capture kernel said\n%s", runErr, said)
	}
	t.Logf("%v of QEMU; the capture kernel said\n%s", run.Duration.Round(time.Second), said)
	return said
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
	if want := "lab: the first sender ended with 137"; !strings.Contains(said, want) {
		t.Errorf("the console does not say %q", want)
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
