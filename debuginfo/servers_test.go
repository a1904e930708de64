package debuginfo

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corehaul/corehaul/debuginfo/symbolfile"
)

// TestSlow: a server that stops sending is given up. Nothing wrong is kept of it.
func TestSlow(t *testing.T) {
	t.Parallel()
	file, dir := fileWith(someID, 90<<10), t.TempDir()
	slow := newTestServer(t, file)
	slow.hold = func(sent int, r *http.Request) {
		if sent >= 32<<10 {
			<-r.Context().Done()
		}
	}
	f, _ := newTestFinder(t, dir, slow.URL)
	f.Servers.Timeout = 300 * time.Millisecond
	if why := mustFail(t, f); !strings.Contains(why, slow.URL) || !strings.Contains(why, "100 KiB in 300ms") {
		t.Errorf("got %q", why)
	}
	slow.hold = nil
	f, _ = newTestFinder(t, dir, slow.URL)
	mustFind(t, f, file)
}

func TestLying(t *testing.T) {
	t.Parallel()
	other := symbolfile.BuildID(bytes.Repeat([]byte{0xcd}, 20))
	stripped := fileWith(someID, 0)
	for name, tc := range map[string]struct {
		file []byte
		want string
	}{
		"another build":  {fileWith(other, 9<<10), "build id " + other.String() + ", not " + someID.String()},
		"compressed":     {append([]byte("\x28\xb5\x2f\xfd"), fileWith(someID, 9<<10)...), "a compressed one: unpack it with 'zstd -d'"},
		"no ELF":         {[]byte(strings.Repeat("<html>", 100)), "no 64-bit little-endian ELF file"},
		"nothing":        {nil, "it ends early"},
		"half":           {fileWith(someID, 9<<10)[:5<<10], "it ends early"},
		"no information": {stripped, "no debugging information"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, s := t.TempDir(), newTestServer(t, tc.file)
			f, _ := newTestFinder(t, dir, s.URL)
			if why := mustFail(t, f); !strings.Contains(why, s.URL) || !strings.Contains(why, tc.want) {
				t.Errorf("got %q", why)
			}
			mustFail(t, f)
			if n := s.requests.Load(); n != 1 {
				t.Errorf("%d requests, want 1: the answer is known", n)
			}
			if got := names(t, dir); len(got) != 0 {
				t.Errorf("the cache has %q", got)
			}
			good := newTestServer(t, fileWith(someID, 9<<10))
			f, _ = newTestFinder(t, dir, s.URL, good.URL)
			mustFind(t, f, good.file)
		})
	}
}

// TestServerFaults: a server with a fault of its own is asked again, one that is not there is not.
func TestServerFaults(t *testing.T) {
	t.Parallel()
	file := fileWith(someID, 9<<10)
	good := newTestServer(t, file)
	asked := atomic.Int64{}
	faulty := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < 3 {
			http.Error(w, "no", http.StatusBadGateway)
			return
		}
		good.serve(w, r)
	}))
	defer faulty.Close()
	f, _ := newTestFinder(t, t.TempDir(), faulty.URL)
	mustFind(t, f, file)
	gone := newTestServer(t, file)
	gone.Close()
	f, _ = newTestFinder(t, t.TempDir(), gone.URL)
	if why := mustFail(t, f); !strings.Contains(why, gone.URL) {
		t.Errorf("got %q", why)
	}
}

func TestServersFromEnvironment(t *testing.T) {
	t.Parallel()
	env := func(values map[string]string) func(string) string {
		return func(name string) string { return values[name] }
	}
	s, ignored, err := ServersFromEnvironment(env(map[string]string{
		"DEBUGINFOD_URLS":    "ima:enforcing https://a.example/ ima:ignore http://b.example/x/buildid/ file:///tmp ftp://c",
		"DEBUGINFOD_TIMEOUT": "7",
	}))
	if err != nil || !slices.Equal(s.URLs, []string{"https://a.example", "http://b.example/x"}) || s.Timeout != 7*time.Second {
		t.Errorf("got %+v, %v", s, err)
	}
	if len(ignored) != 3 || !strings.Contains(ignored[0], "ima:enforcing") {
		t.Errorf("ignored %q", ignored)
	}
	if s, _, err := ServersFromEnvironment(env(nil)); s != nil || err != nil {
		t.Errorf("got %v, %v", s, err)
	}
	if _, _, err := ServersFromEnvironment(env(map[string]string{"DEBUGINFOD_URLS": "http://a", "DEBUGINFOD_TIMEOUT": "soon"})); err == nil || !strings.Contains(err.Error(), "DEBUGINFOD_TIMEOUT") {
		t.Errorf("got %v", err)
	}
}
