package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// symbolsHeldAt is how much of a file comes before symbolsProxy holds it.
const symbolsHeldAt = 16 << 20

// symbolsProxy stands before a debuginfod. Change its fields while no request is under way.
type symbolsProxy struct {
	*httptest.Server
	requests atomic.Int64
	unsized  bool   // it does not say how long a file is
	hold     func() // called in the middle of each file
}

func symbolsNewProxy(t *testing.T, server string) *symbolsProxy {
	t.Helper()
	to, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	p := &symbolsProxy{}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }, FlushInterval: -1}
	proxy.ModifyResponse = func(r *http.Response) error {
		if p.unsized {
			r.ContentLength = -1
			r.Header.Del("Content-Length")
			r.Header.Del("X-DEBUGINFOD-SIZE")
		}
		if p.hold != nil {
			r.Body = &symbolsHeld{ReadCloser: r.Body, left: symbolsHeldAt, hold: p.hold}
		}
		return nil
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.requests.Add(1)
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

// symbolsHeld is a body that is held once, after some bytes.
type symbolsHeld struct {
	io.ReadCloser
	left int
	hold func()
}

func (h *symbolsHeld) Read(p []byte) (int, error) {
	if h.left <= 0 && h.hold != nil {
		h.hold()
		h.hold = nil
	}
	n, err := h.ReadCloser.Read(p)
	h.left -= n
	return n, err
}

// symbolsDiskFills has the disk of a cache fill up during a download: of a file whose size nobody said, and because somebody else writes. bt
// says so, does without lines, and keeps nothing. size is that of the file. It returns the cache, whose disk has room for the file then.
func symbolsDiskFills(t *testing.T, p *symbolsProxy, dump string, size int64) (cache string) {
	t.Helper()
	cache = fulldiskMount(t, 4*symbolsHeldAt)
	bt := func(what string) {
		t.Helper()
		out, stderr, code := symbolsRun(t, "", symbolsEnv(p, cache), "bt", dump)
		if code != 0 || !strings.Contains(out, "null_read [crashmod]") || strings.Contains(out, ".c: ") {
			t.Errorf("%s: exit code %d\n%s", what, code, out)
		}
		if !strings.Contains(stderr, "begins: "+p.URL) || !strings.Contains(stderr, "no space left on device") {
			t.Errorf("%s: stderr %q", what, stderr)
		}
		if left := symbolsCached(t, cache); len(left) > 0 {
			t.Errorf("%s: the cache has %q", what, left)
		}
	}
	p.unsized = true
	bt("a file of unknown size")
	p.unsized = false

	if err := unix.Mount("tmpfs", cache, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", size+4*symbolsHeldAt)); err != nil {
		t.Fatal(err)
	}
	var ballast func()
	p.hold = func() { ballast = fulldiskBallast(t, cache, symbolsHeldAt) }
	bt("a disk that fills up")
	p.hold = nil
	if ballast == nil {
		t.Fatal("nothing was downloaded before the disk was full")
	}
	ballast()
	return cache
}

func symbolsEnv(p *symbolsProxy, cache string) []string {
	// The server may be held for longer than the 90 s that it has by default.
	return []string{"XDG_CACHE_HOME=" + cache, "DEBUGINFOD_CACHE_PATH=", "DEBUGINFOD_URLS=" + p.URL, "DEBUGINFOD_TIMEOUT=600"}
}

// symbolsCached lists what is in a cache.
func symbolsCached(t *testing.T, cache string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(cache, "corehaul", "debuginfo"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// symbolsTwoAtOnce runs two processes of bt at once, with a cache that lacks the file. One downloads it, the other waits for that. Both print
// the same, which it returns.
func symbolsTwoAtOnce(t *testing.T, p *symbolsProxy, cache, dump string) string {
	t.Helper()
	waits := make(chan struct{})
	var once sync.Once
	saw := func() { once.Do(func() { close(waits) }) }
	p.requests.Store(0)
	p.hold = func() {
		select {
		case <-waits:
		case <-time.After(5 * time.Minute):
			t.Error("no process waits for the other")
		}
	}
	defer func() { p.hold = nil }()
	var outs [2]bytes.Buffer
	var errs [2]*symbolsSeen
	var cmds [2]*exec.Cmd
	for i := range cmds {
		errs[i] = &symbolsSeen{want: "another process is downloading", saw: saw}
		cmds[i] = exec.CommandContext(t.Context(), judgesBin+"corehaul", "bt", "--json", dump)
		cmds[i].Env, cmds[i].Stdout, cmds[i].Stderr = append(os.Environ(), symbolsEnv(p, cache)...), &outs[i], errs[i]
		if err := cmds[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("bt: %v\n%s", err, errs[i].text.String())
		}
	}
	if outs[0].String() != outs[1].String() || !strings.Contains(outs[0].String(), `.c"`) {
		t.Errorf("one prints\n%s\nthe other\n%s", outs[0].String(), outs[1].String())
	}
	if n, left := p.requests.Load(), symbolsCached(t, cache); n != 1 || len(left) != 1 {
		t.Errorf("%d requests, and the cache has %q; want one download\n%s%s", n, left, errs[0].text.String(), errs[1].text.String())
	}
	return outs[0].String()
}

// symbolsSeen keeps what is written to it, and calls saw once it has seen a text.
type symbolsSeen struct {
	text bytes.Buffer // not embedded: io.Copy would call its ReadFrom
	want string
	saw  func()
}

func (s *symbolsSeen) Write(b []byte) (int, error) {
	n, err := s.text.Write(b)
	if strings.Contains(s.text.String(), s.want) {
		s.saw()
	}
	return n, err
}
