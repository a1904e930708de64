package sshd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/corehaul/corehaul/receiver/kdumpclients"
)

// silence is how long clients of these tests may be silent. A quarter of it is what a busy machine may take for nothing.
const silence = 4 * time.Second

func patientRig(t *testing.T, tree kdumpclients.Tree) *rig {
	t.Helper()
	r := newRig(t)
	r.server.cfg.ClientIdle = silence
	r.server.cfg.Trees = func(kdumpclients.Peer) (kdumpclients.Tree, error) { return tree, nil }
	return r
}

// ended reads a channel to its end and returns what stands on both of its outputs, and the status of its command.
func ended(t *testing.T, ch ssh.Channel, reqs <-chan *ssh.Request) (out, errs string, status uint32) {
	t.Helper()
	read := func(r io.Reader) chan string {
		text := make(chan string)
		go func() {
			b, _ := io.ReadAll(r) // an error is an end
			text <- string(b)
		}()
		return text
	}
	stdout, stderr := read(ch), read(ch.Stderr())
	status = 1 << 31
	for req := range reqs { // the test would time out
		if req.Type == "exit-status" {
			var msg struct{ Status uint32 }
			if err := ssh.Unmarshal(req.Payload, &msg); err != nil {
				t.Error(err)
			}
			status = msg.Status
		}
	}
	return <-stdout, <-stderr, status
}

// TestSilentClients has clients that are there and say nothing: they are told why they are cut off, and what has come is kept as what it is.
func TestSilentClients(t *testing.T) {
	t.Parallel()
	tree := newMemTree()
	r := patientRig(t, tree)
	c := r.client()
	var all sync.WaitGroup
	const word = "no data for 4s"
	for line, in := range map[string]string{"cat > /cat": "half", "dd of=/dd": "half", "scp -t /scp": "C0644 9 scp\nhalf", "scp -f /scp": ""} {
		ch, reqs := r.open(c, "exec", line)
		if _, err := io.WriteString(ch, in); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			if out, errs, status := ended(t, ch, reqs); status != exitFailure || !strings.Contains(out+errs, word) {
				t.Errorf("%s: status %d, %q, %q", line, status, out, errs)
			}
		})
	}
	files, err := sftp.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	file, err := files.Create("/sftp")
	if err == nil {
		_, err = io.WriteString(file, "half")
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = files.Wait() // the test would time out
	all.Wait()
	r.logged("an SFTP session ended early")
	for _, name := range []string{"/cat", "/dd", "/scp", "/sftp"} {
		var silent *silentError
		if !errors.As(tree.aborted[name], &silent) || tree.text(t, name) != "half" {
			t.Errorf("%s ended with %v", name, tree.aborted[name])
		}
	}
}

// TestSilentSFTP is silent in the midst of a packet.
func TestSilentSFTP(t *testing.T) {
	t.Parallel()
	r := patientRig(t, newMemTree())
	ch, reqs := r.open(r.client(), "subsystem", sftpSubsystem)
	hello := sftpPacket(1, 3)
	if _, err := ch.Write(append(hello, hello[:6]...)); err != nil {
		t.Fatal(err)
	}
	if _, errs, status := ended(t, ch, reqs); status != exitFailure || !strings.HasPrefix(errs, "corehaul: no data for 4s") {
		t.Errorf("status %d, %q", status, errs)
	}
}

// slowTree is long in making directories.
type slowTree struct{ *memTree }

func (s slowTree) Mkdir(p string) error {
	time.Sleep(silence * 3 / 2)
	return s.memTree.Mkdir(p)
}

// TestSlowButAlive has a client that pauses, and one that waits for a server which is slow itself.
func TestSlowButAlive(t *testing.T) {
	t.Parallel()
	tree := newMemTree()
	r := patientRig(t, slowTree{tree})
	c := r.client()
	files, err := sftp.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	made := make(chan error)
	go func() {
		err := files.Mkdir("/d")
		time.Sleep(silence * 3 / 4) // which began with the answer
		_, gone := files.Stat("/d")
		made <- errors.Join(err, gone)
	}()
	ch, reqs := r.open(c, "exec", "cat > /f")
	for range 12 { // a byte for each quarter of the time
		time.Sleep(silence / 4)
		if _, err := io.WriteString(ch, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := ch.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	go func() { // the server asks whether the client is there
		for req := range reqs {
			_ = req.Reply(false, nil)
		}
	}()
	if b, err := io.ReadAll(ch); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	if err := <-made; err != nil || len(tree.aborted) > 0 || tree.text(t, "/f") != strings.Repeat("x", 12) {
		t.Errorf("mkdir: %v, aborted %v", err, tree.aborted)
	}
	_ = files.Close() // as the end of the test does
}

// TestNeverReads has a client that takes nothing of what it asks for.
func TestNeverReads(t *testing.T) {
	t.Parallel()
	tree := newMemTree()
	tree.dirs["/d"] = true
	for i := range 200 {
		tree.files[fmt.Sprint("/d/", i)] = bytes.NewReader(nil)
	}
	r := patientRig(t, tree)
	_, reqs := r.open(r.client(), "exec", strings.Repeat("ls -l /d;", 800)) // more than the window of 2 MiB
	begin := time.Now()
	for range reqs { // the test would time out
		continue
	}
	if took := time.Since(begin); took < silence {
		t.Errorf("it was over after %v", took)
	}
}
