package sshd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/corehaul/corehaul/receiver/kdumpclients"
)

// silence is how long clients of these tests may be silent.
const silence = 4 * time.Second

// patient runs a test of a client of such a server, over a connection in memory and in time that passes only while
// both wait.
func patient(t *testing.T, tree kdumpclients.Tree, test func(*rig, *ssh.Client)) {
	t.Helper()
	r := newRig(t)
	r.server.cfg.ClientIdle = silence
	r.server.cfg.Trees = func(kdumpclients.Peer) (kdumpclients.Tree, error) { return tree, nil }
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		go r.server.handle(t.Context(), there)
		conn, channels, requests, err := ssh.NewClientConn(newAhead(here), "server", &ssh.ClientConfig{
			User: "root", HostKeyCallback: ssh.InsecureIgnoreHostKey(), Auth: []ssh.AuthMethod{ssh.PublicKeys(r.signer)},
		})
		if err != nil {
			t.Fatal(err)
		}
		c := ssh.NewClient(conn, channels, requests)
		defer func() { _ = c.Close() }() // it may be closed
		test(r, c)
	})
}

// ahead is a net.Pipe whose writer does not wait for the reader: both ends of an SSH connection begin with a write.
type ahead struct {
	net.Conn
	queue  chan []byte
	closed chan struct{}
	once   sync.Once
}

func newAhead(c net.Conn) *ahead {
	a := &ahead{Conn: c, queue: make(chan []byte, 1), closed: make(chan struct{})}
	go func() {
		for {
			select {
			case b := <-a.queue:
				_, _ = a.Conn.Write(b) // the reader sees a broken connection
			case <-a.closed:
				return
			}
		}
	}()
	return a
}

func (a *ahead) Write(p []byte) (int, error) {
	select {
	case a.queue <- bytes.Clone(p):
		return len(p), nil
	case <-a.closed:
		return 0, net.ErrClosed
	}
}

func (a *ahead) Close() error {
	a.once.Do(func() { close(a.closed) })
	return a.Conn.Close()
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
	tree := newMemTree()
	patient(t, tree, func(r *rig, c *ssh.Client) { silentClients(t, r, c, tree) })
}

func silentClients(t *testing.T, r *rig, c *ssh.Client, tree *memTree) {
	t.Helper()
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
	patient(t, newMemTree(), func(r *rig, c *ssh.Client) {
		ch, reqs := r.open(c, "subsystem", sftpSubsystem)
		hello := sftpPacket(1, 3)
		if _, err := ch.Write(append(hello, hello[:6]...)); err != nil {
			t.Fatal(err)
		}
		if _, errs, status := ended(t, ch, reqs); status != exitFailure || !strings.HasPrefix(errs, "corehaul: no data for 4s") {
			t.Errorf("status %d, %q", status, errs)
		}
	})
}

// slowTree is long in making directories.
type slowTree struct{ *memTree }

func (s slowTree) Mkdir(p string) error {
	time.Sleep(silence * 3 / 2)
	return s.memTree.Mkdir(p)
}

// TestSlowButAlive has a client that pauses, and one that waits for a server which is slow itself.
func TestSlowButAlive(t *testing.T) {
	tree := newMemTree()
	patient(t, slowTree{tree}, func(r *rig, c *ssh.Client) { slowButAlive(t, r, c, tree) })
}

func slowButAlive(t *testing.T, r *rig, c *ssh.Client, tree *memTree) {
	t.Helper()
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
	tree := newMemTree()
	tree.dirs["/d"] = true
	for i := range 200 {
		tree.files[fmt.Sprint("/d/", i)] = bytes.NewReader(nil)
	}
	patient(t, tree, func(r *rig, c *ssh.Client) {
		begin := time.Now()
		_, reqs := r.open(c, "exec", strings.Repeat("ls -l /d;", 800)) // more than the window of 2 MiB
		for range reqs {                                               // the test would time out
			continue
		}
		if took := time.Since(begin); took != silence {
			t.Errorf("it was over after %v", took)
		}
	})
}
