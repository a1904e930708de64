package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/crypto/ssh"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/vmcore"
	"github.com/corehaul/corehaul/vmcore/dumpfile"
)

// The tests here work on a data directory that an earlier version left behind: see testdata/stored/README.md.

// storedPages is how many pages the sources there have, and how many of them level 31 keeps.
const (
	storedPages   = 1430
	storedLevel31 = 1130
)

// rawList is what "ls --json" prints, dump by dump as it stands there.
type rawList struct {
	Dumps []json.RawMessage `json:"dumps"`
}

// listed is what the tests look at of a dump in a list.
type listed struct {
	Host, ID, Path string
	Manifest       dumpdir.Manifest
}

// storedData unpacks the data directory, and what it was made from, and makes that the working directory. It is in "data"
// there, and the source of a host's dump in "sources/HOST".
func storedData(t *testing.T) {
	t.Helper()
	packed, err := os.Open(filepath.Join("testdata", "stored", "data.tar.zst"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = packed.Close() }() // only read
	z, err := zstd.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	t.Chdir(t.TempDir())
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err := errors.Join(err, unpack(h, r)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("COREHAUL_DATA", "data")
}

func unpack(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeDir {
		return os.MkdirAll(h.Name, 0o750)
	}
	b, err := io.ReadAll(r)
	return errors.Join(err, os.WriteFile(h.Name, b, 0o600))
}

// wantListed compares what "ls" and "show" print with what the earlier version's "ls" printed.
func wantListed(t *testing.T, golden []byte) {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	relative := func(s string) string { return strings.ReplaceAll(s, `"`+dir+"/", `"`) }
	if got := relative(corehaul(t, "ls", "--json")); got != string(golden) {
		t.Errorf("ls prints\n%s\nwant\n%s", got, golden)
	}
	var want rawList
	if err := json.Unmarshal(golden, &want); err != nil || len(want.Dumps) != 6 {
		t.Fatalf("%d dumps, %v", len(want.Dumps), err)
	}
	for _, raw := range want.Dumps {
		var e listed
		if err := json.Unmarshal(raw, &e); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := json.Indent(&got, []byte(relative(corehaul(t, "show", "--json", e.ID))), "    ", "  "); err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(got.String()) != string(raw) {
			t.Errorf("show prints\n%s\nwant\n%s", got.String(), raw)
		}
	}
}

// TestStoredBefore lists what an earlier version stored, with its index, without one, and with one made anew, and reads every byte of it.
func TestStoredBefore(t *testing.T) {
	golden, err := os.ReadFile(filepath.Join("testdata", "stored", "ls.json"))
	if err != nil {
		t.Fatal(err)
	}
	storedData(t)
	wantListed(t, golden)
	corehaul(t, "reindex")
	wantListed(t, golden)
	indexes, err := filepath.Glob("data/index.db*")
	if err != nil || len(indexes) == 0 {
		t.Fatal(indexes, err)
	}
	for _, name := range indexes {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	wantListed(t, golden)
	corehaul(t, "verify", "--all")
	for _, e := range list(t) {
		wantSourcePages(t, e)
		if e.Manifest.Transport == "ssh" {
			continue // the stock client sent no log
		}
		if text := corehaul(t, "log", e.ID); !strings.Contains(text, "not syncing: "+e.Host) {
			t.Errorf("%s has the log %q", e.Host, text)
		}
	}
}

// list returns what is stored now.
func list(t *testing.T) []listed {
	t.Helper()
	var dumps struct{ Dumps []listed }
	if err := json.Unmarshal([]byte(corehaul(t, "ls", "--json")), &dumps); err != nil {
		t.Fatal(err)
	}
	return dumps.Dumps
}

// only returns the only dump of a host.
func only(t *testing.T, host string) listed {
	t.Helper()
	dumps := slices.DeleteFunc(list(t), func(e listed) bool { return e.Host != host })
	if len(dumps) != 1 {
		t.Fatalf("%d dumps of %s", len(dumps), host)
	}
	return dumps[0]
}

// wantSourcePages reads all pages that a dump says it has and compares them with its source.
func wantSourcePages(t *testing.T, e listed) {
	t.Helper()
	if e.Manifest.State == dumpdir.StateLogOnly {
		return
	}
	source := "sources/" + e.Host
	if e.Manifest.Transport == "ssh" {
		source = "sources/stock"
	}
	want, err := dumpfile.Open(source)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = want.Close() }() // only read
	d, err := dumpdir.Open(dumpdir.OS{}, e.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }() // only read
	got, err := d.OpenImage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = got.Close() }() // only read
	if n := samePages(t, got, want); n != e.Manifest.Pages.Present {
		t.Errorf("%s has %d pages, its manifest says %d", e.Host, n, e.Manifest.Pages.Present)
	}
}

// samePages compares the pages of got with those of want and returns how many there are.
func samePages(t *testing.T, got, want vmcore.Image) (n uint64) {
	t.Helper()
	a, b := make([]byte, testPage), make([]byte, testPage)
	for run, err := range vmcore.HeldPages(got) {
		if err != nil {
			t.Fatal(err)
		}
		for pfn := run.Start; pfn < run.End(); pfn++ {
			err := got.ReadPage(a, pfn)
			if errors.Is(err, vmcore.ErrIncomplete) {
				continue // the dump is arriving
			}
			if err := errors.Join(err, want.ReadPage(b, pfn)); err != nil || !bytes.Equal(a, b) {
				t.Fatalf("pfn %d differs: %v", pfn, err)
			}
			n++
		}
	}
	return n
}

// serving is a receiver that runs over the data directory.
type serving struct {
	tls, ssh string // HOST:PORT
	stop     func()
}

// serveStored starts a receiver over the data directory.
func serveStored(t *testing.T, grace string, keys ...string) *serving {
	t.Helper()
	if err := os.WriteFile("authorized_keys", []byte(strings.Join(keys, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	args := []string{"serve", "--ca", "ca", "--tls", "127.0.0.1:0", "--reserve", "0", "--resume-grace", grace}
	if len(keys) > 0 {
		args = append(args, "--ssh", "127.0.0.1:0", "--authorized-keys", "authorized_keys")
	}
	go func() {
		ended <- run(ctx, cli.Stdio{Out: in, Err: t.Output()}, args)
		_ = in.Close()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(errors.Join(err, <-ended))
	}
	s := &serving{}
	for _, addr := range strings.Fields(line)[1:] {
		if rest, ok := strings.CutPrefix(addr, "tls://"); ok {
			s.tls = rest
		} else {
			s.ssh = strings.TrimPrefix(addr, "ssh://")
		}
	}
	s.stop = func() {
		cancel()
		if err, ok := <-ended; ok && err != nil {
			t.Errorf("stopped with %v", err)
		}
		close(ended)
	}
	return s
}

// buildSender builds corehaul-send. It is run as a program of its own: sender and receiver meet on the wire only.
func buildSender(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "corehaul-send")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../corehaul-send")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return program
}

// send sends the source of a host once more.
func (s *serving) send(t *testing.T, program, host, level string) {
	t.Helper()
	corehaul(t, "ca", "issue", host, "--ca", "ca", "--output", host+".pem")
	cmd := exec.CommandContext(t.Context(), program, "send", "--to", "tls://"+s.tls, "--identity", host+".pem", "--level", level, "sources/"+host)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("send of %s: %v\n%s", host, err, out)
	}
}

// TestStoredIsResumed goes on with the dumps that an earlier version left arriving, or sealed as partial. Only what lacks is sent.
func TestStoredIsResumed(t *testing.T) {
	program := buildSender(t)
	for name, dump := range map[string]struct {
		host, level string
		pages       uint64
	}{
		"partial":    {"web-2", "0", storedPages},
		"arriving":   {"web-3", "0", storedPages},
		"log only":   {"web-4", "31", storedLevel31},
		"challenged": {"web-5", "31", storedLevel31},
		"challenger": {"web-5", "0", storedPages},
	} {
		t.Run(name, func(t *testing.T) {
			storedData(t)
			corehaul(t, "ca", "init", "--ca", "ca")
			s := serveStored(t, "1h")
			s.send(t, program, dump.host, dump.level)
			s.stop()
			e := only(t, dump.host)
			if m := e.Manifest; m.State != dumpdir.StateComplete || m.Pages.Present != dump.pages {
				t.Errorf("%s with %d pages, want %d", m.State, m.Pages.Present, dump.pages)
			}
			wantSourcePages(t, e)
			corehaul(t, "verify", e.ID)
		})
	}
}

// TestStoredStreamIsSentAgain has a stock client come back whose stream an earlier version was receiving.
func TestStoredStreamIsSentAgain(t *testing.T) {
	storedData(t)
	corehaul(t, "ca", "init", "--ca", "ca")
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s := serveStored(t, "1h", fmt.Sprintf("%s web-7\n", bytes.TrimSpace(ssh.MarshalAuthorizedKey(signer.PublicKey()))))
	stream, err := os.ReadFile("sources/stock")
	if err != nil {
		t.Fatal(err)
	}
	client := dialStock(t, s.ssh, signer)
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	session.Stdin = bytes.NewReader(stream)
	if out, err := session.CombinedOutput("dd of=/var/crash/127.0.0.1-2023-11-14-22:13:20/vmcore"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "web-7", dumpdir.StateComplete)
	s.stop()
	e := only(t, "web-7")
	wantSourcePages(t, e)
	corehaul(t, "verify", e.ID)
}

// dialStock connects as a stock client does.
func dialStock(t *testing.T, addr string, key ssh.Signer) *ssh.Client {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c, channels, requests, err := ssh.NewClientConn(conn, addr, &ssh.ClientConfig{
		User: "kdump", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return ssh.NewClient(c, channels, requests)
}

// waitFor waits until a host's only dump is in a state.
func waitFor(t *testing.T, host string, state dumpdir.State) {
	t.Helper()
	for range 600 {
		for _, e := range list(t) {
			if e.Host == host && e.Manifest.State == state {
				return
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("no dump of %s gets %s", host, state)
}

// TestStoredIsSealed lets the time run out of all that an earlier version left arriving.
func TestStoredIsSealed(t *testing.T) {
	storedData(t)
	corehaul(t, "ca", "init", "--ca", "ca")
	s := serveStored(t, "1ms")
	for _, host := range []string{"web-3", "web-5", "web-7"} {
		waitFor(t, host, dumpdir.StatePartial)
	}
	s.stop()
	for _, e := range list(t) {
		wantSourcePages(t, e)
	}
	if only(t, "web-7").Manifest.Pages.Present == 0 {
		t.Error("nothing is left of the stream")
	}
	corehaul(t, "verify", "--all")
	if next, err := os.ReadDir("data/next/web-5"); !errors.Is(err, fs.ErrNotExist) && len(next) > 0 {
		t.Errorf("the challenger is still there: %v, %v", next, err)
	}
}
