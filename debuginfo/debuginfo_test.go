package debuginfo

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/corehaul/corehaul/debuginfo/symbolfile"
)

// someID is the build id of the tests' files.
var someID = symbolfile.BuildID(bytes.Repeat([]byte{0xab, 0x12}, 10))

// fileWith makes an ELF file with a build id, and debugging information of size bytes.
func fileWith(id symbolfile.BuildID, size int) []byte {
	names := "\x00.note.gnu.build-id\x00.debug_info\x00.shstrtab\x00"
	note := binary.LittleEndian.AppendUint32(nil, 4)
	note = binary.LittleEndian.AppendUint32(note, uint32(len(id)))
	note = binary.LittleEndian.AppendUint32(note, 3)
	note = append(append(note, "GNU\x00"...), id...)
	info := make([]byte, size)
	for i := range info {
		info[i] = byte(i * 7 >> 3)
	}
	var b bytes.Buffer
	b.Write(make([]byte, 64))
	sections := []elf.Section64{{}}
	for _, s := range []struct {
		name string
		kind elf.SectionType
		data []byte
	}{{".note.gnu.build-id", elf.SHT_NOTE, note}, {".debug_info", elf.SHT_PROGBITS, info}, {".shstrtab", elf.SHT_STRTAB, []byte(names)}} {
		sections = append(sections, elf.Section64{
			Name: uint32(strings.Index(names, s.name)), Type: uint32(s.kind), Off: uint64(b.Len()), Size: uint64(len(s.data)), Addralign: 1,
		})
		b.Write(s.data)
	}
	h := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
		Shoff: uint64(b.Len()), Ehsize: 64, Shentsize: 64, Shnum: uint16(len(sections)), Shstrndx: 3,
	}
	for _, s := range sections {
		_ = binary.Write(&b, binary.LittleEndian, s) // a bytes.Buffer takes all
	}
	var head bytes.Buffer
	_ = binary.Write(&head, binary.LittleEndian, h)
	copy(b.Bytes(), head.Bytes())
	return b.Bytes()
}

// testServer serves one file as debuginfod does.
type testServer struct {
	*httptest.Server
	file     []byte
	ranges   bool   // it can send parts, as the proxies before servers can
	tag      string // ETag
	unsized  bool   // it does not say how long the file is
	requests atomic.Int64
	sent     atomic.Int64 // bytes of files
	cut      func(request int64) int
	hold     func(sent int, r *http.Request) // called before the bytes from there on are sent
}

func newTestServer(t *testing.T, file []byte) *testServer {
	t.Helper()
	s := &testServer{file: file, cut: func(int64) int { return -1 }}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *testServer) serve(w http.ResponseWriter, r *http.Request) {
	n := s.requests.Add(1)
	if r.URL.Path != "/buildid/"+someID.String()+"/debuginfo" {
		http.NotFound(w, r)
		return
	}
	from := 0
	if s.tag != "" {
		w.Header().Set("ETag", s.tag)
	}
	if head := r.Header.Get("Range"); head != "" && s.ranges && (s.tag == "" || r.Header.Get("If-Range") == s.tag) {
		from, _ = strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(head, "bytes="), "-"))
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(s.file)-1, len(s.file)))
	}
	if !s.unsized {
		w.Header().Set("Content-Length", strconv.Itoa(len(s.file)-from))
	}
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	end := len(s.file)
	if cut := s.cut(n); cut >= 0 {
		end = min(end, from+cut)
	}
	for from < end {
		if s.hold != nil {
			s.hold(from, r)
		}
		k, err := w.Write(s.file[from:min(end, from+16<<10)])
		s.sent.Add(int64(k))
		if err != nil {
			return
		}
		from += k
		w.(http.Flusher).Flush()
	}
	if end < len(s.file) {
		panic(http.ErrAbortHandler) // the connection ends here
	}
}

// newTestFinder returns a finder that knows nothing of this machine, and what it told.
func newTestFinder(t *testing.T, dir string, urls ...string) (*Finder, *told) {
	t.Helper()
	servers, _, err := ServersFromEnvironment(func(name string) string {
		if name == "DEBUGINFOD_URLS" {
			return strings.Join(urls, " ")
		}
		return ""
	})
	if err != nil {
		t.Fatal(err)
	}
	if servers != nil {
		servers.client.RetryWaitMin, servers.client.RetryWaitMax = time.Millisecond, time.Millisecond
	}
	said := &told{first: make(chan string, 1)}
	return &Finder{Servers: servers, Cache: &Cache{Dir: dir, Limit: 1 << 30}, Tell: said.add}, said
}

type told struct {
	mu    sync.Mutex
	lines []string
	first chan string
}

func (l *told) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	select {
	case l.first <- line:
	default:
	}
}

func (l *told) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

var some = Want{BuildID: someID, Release: "6.1.0-test"}

// mustFind finds the file and compares it.
func mustFind(t *testing.T, f *Finder, want []byte) *File {
	t.Helper()
	file, err := f.Find(t.Context(), some)
	if err != nil {
		var missing *NotFoundError
		if errors.As(err, &missing) {
			t.Fatalf("%v: looked at %q, failed %q", err, missing.Looked, missing.Failed)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	if got, err := os.ReadFile(file.Name()); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%s has %d bytes, want %d: %v", file.Name(), len(got), len(want), err)
	}
	return file
}

// mustFail looks for the file in vain, and returns what failed.
func mustFail(t *testing.T, f *Finder) string {
	t.Helper()
	file, err := f.Find(t.Context(), some)
	if err == nil {
		_ = file.Close()
		t.Fatalf("found %s", file.Name())
	}
	var missing *NotFoundError
	if errors.As(err, &missing) {
		return err.Error() + "\n" + strings.Join(missing.Failed, "\n")
	}
	return err.Error()
}

// names lists the files of a cache.
func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func TestDownloadOnce(t *testing.T) {
	t.Parallel()
	file, dir := fileWith(someID, 300<<10), filepath.Join(t.TempDir(), "not", "yet")
	s := newTestServer(t, file)
	f, said := newTestFinder(t, dir, s.URL+"/")
	if got := mustFind(t, f, file); !got.Downloaded || filepath.Base(got.Name()) != someID.String()+".debug" {
		t.Errorf("got %s, downloaded: %v", got.Name(), got.Downloaded)
	}
	if text := said.String(); !strings.Contains(text, "vmlinux of 300.4 KiB begins: "+s.URL) {
		t.Errorf("told %q", text)
	}
	f, _ = newTestFinder(t, dir, s.URL)
	mustFind(t, f, file)
	if n := s.requests.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("the cache has %q", got)
	}
}

// TestCutAtAnyByte cuts the transfer off at every byte of the headers, and at steps through the rest. Servers without ranges send the
// file again, the others what is missing.
func TestCutAtAnyByte(t *testing.T) {
	t.Parallel()
	file := fileWith(someID, 90<<10)
	var cuts []int
	for c := 0; c < len(file); c += 1 + c/128*128 {
		cuts = append(cuts, c)
	}
	cuts = append(cuts, len(file)-2, len(file)-1)
	for _, ranges := range []bool{false, true} {
		for _, unsized := range []bool{false, true} {
			for _, c := range cuts {
				s := newTestServer(t, file)
				s.ranges, s.unsized, s.tag = ranges, unsized, `"one"`
				s.cut = func(n int64) int {
					if n == 1 {
						return c
					}
					return -1
				}
				f, _ := newTestFinder(t, t.TempDir(), s.URL)
				mustFind(t, f, file)
				if sent := s.sent.Load(); ranges && !unsized && sent > int64(len(file)) {
					t.Errorf("cut at %d: the server sent %d bytes of %d", c, sent, len(file))
				}
				s.Close()
			}
		}
	}
}

// TestCutAlways cuts every transfer off. The next process goes on where the last one ended.
func TestCutAlways(t *testing.T) {
	t.Parallel()
	file, dir := fileWith(someID, 90<<10), t.TempDir()
	s := newTestServer(t, file)
	s.ranges = true
	s.cut = func(int64) int { return 1000 }
	f, _ := newTestFinder(t, dir, s.URL)
	if why := mustFail(t, f); !strings.Contains(why, s.URL) || !strings.Contains(why, "broke") {
		t.Errorf("got %q", why)
	}
	if _, err := os.Stat(filepath.Join(dir, someID.String()+".debug")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a part counts as the file: %v", err)
	}
	before := s.sent.Load()
	s.cut = func(int64) int { return -1 }
	f, said := newTestFinder(t, dir, s.URL)
	mustFind(t, f, file)
	if sent := s.sent.Load() - before; sent != int64(len(file))-before {
		t.Errorf("it sent %d bytes again, of %d", sent, len(file))
	}
	if !strings.Contains(said.String(), "goes on at") {
		t.Errorf("told %q", said)
	}
}

// TestChangedMeanwhile resumes a file of which the server has another version by now.
func TestChangedMeanwhile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newTestServer(t, bytes.Repeat([]byte{1}, 90<<10))
	s.ranges, s.tag = true, `"old"`
	s.cut = func(int64) int { return 50 << 10 }
	f, _ := newTestFinder(t, dir, s.URL)
	mustFail(t, f)
	s.file, s.tag = fileWith(someID, 80<<10), `"new"`
	s.cut = func(int64) int { return -1 }
	f, _ = newTestFinder(t, dir, s.URL)
	mustFind(t, f, s.file)
}

// TestOtherSize resumes from a server without versions, whose file has another size by now.
func TestOtherSize(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newTestServer(t, bytes.Repeat([]byte{1}, 90<<10))
	s.ranges = true
	s.cut = func(int64) int { return 50 << 10 }
	f, _ := newTestFinder(t, dir, s.URL)
	mustFail(t, f)
	s.file = fileWith(someID, 300<<10)
	s.cut = func(int64) int { return -1 }
	f, _ = newTestFinder(t, dir, s.URL)
	mustFind(t, f, s.file)
}

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

func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	file, dir := fileWith(someID, 300<<10), t.TempDir()
	s := newTestServer(t, file)
	begun, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.hold = func(sent int, _ *http.Request) {
		if sent >= 64<<10 {
			once.Do(func() { close(begun) })
			<-goOn
		}
	}
	first, _ := newTestFinder(t, dir, s.URL)
	done := make(chan error, 1)
	go func() {
		file, err := first.Find(t.Context(), some)
		if err == nil {
			err = file.Close()
		}
		done <- err
	}()
	<-begun
	second, said := newTestFinder(t, dir, s.URL)
	go func() {
		<-said.first // that it waits
		close(goOn)
	}()
	mustFind(t, second, file)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := s.requests.Load(); n != 1 || !strings.Contains(said.String(), "waiting") {
		t.Errorf("%d requests, want 1; the second was told %q", n, said)
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("the cache has %q", got)
	}
}

// TestWaitEnds: an interrupt ends the wait for another process.
func TestWaitEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := &Cache{Dir: dir, Limit: 1 << 20}
	p, _, err := c.lockPart(t.Context(), someID, func(string, ...any) {})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, _, err = c.lockPart(ctx, someID, func(string, ...any) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := p.leave(io.ErrUnexpectedEOF); err != nil || len(names(t, dir)) != 0 {
		t.Errorf("left %q: %v", names(t, dir), err)
	}
}

func TestLimitOfTheCache(t *testing.T) {
	t.Parallel()
	dir, file := t.TempDir(), fileWith(someID, 100<<10)
	old := func(name string, age time.Duration) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, 100<<10), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-age)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		return path
	}
	oldest, older, recent := old("aa.debug", 3*time.Hour), old("bb.debug", 2*time.Hour), old("cc.debug", time.Hour)
	interrupted, notOurs := old("dd.part", 4*time.Hour), old("notes.txt", 9*time.Hour)
	used, err := os.Open(oldest)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = used.Close() }()
	if err := flock(used, 1); err != nil { // LOCK_SH
		t.Fatal(err)
	}
	s := newTestServer(t, file)
	f, _ := newTestFinder(t, dir, s.URL)
	f.Cache.Limit = 350 << 10
	mustFind(t, f, file)
	for _, path := range []string{oldest, recent, notOurs} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	for _, path := range []string{older, interrupted} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there", path)
		}
	}
}

// TestTooLarge: neither a file that says so nor one that does not gets more room than there is.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	for _, unsized := range []bool{false, true} {
		dir, s := t.TempDir(), newTestServer(t, fileWith(someID, 1<<20))
		s.unsized = unsized
		f, _ := newTestFinder(t, dir, s.URL)
		f.Cache.Limit = 512 << 10
		if why := mustFail(t, f); !strings.Contains(why, "512.0 KiB") {
			t.Errorf("got %q", why)
		}
		if got := names(t, dir); len(got) != 0 {
			t.Errorf("the cache has %q", got)
		}
	}
	dir := t.TempDir()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(1<<40))
		_, _ = w.Write(make([]byte, 64<<10))
	}))
	defer s.Close()
	f, _ := newTestFinder(t, dir, s.URL)
	f.Cache.Limit = 1 << 60
	if why := mustFail(t, f); !strings.Contains(why, "1.0 TiB are needed: no space left on device") {
		t.Errorf("got %q", why)
	}
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("the cache has %q", got)
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

// TestDamagedCache: a file of the cache that is no longer what it was is fetched again.
func TestDamagedCache(t *testing.T) {
	t.Parallel()
	file, dir := fileWith(someID, 90<<10), t.TempDir()
	s := newTestServer(t, file)
	f, _ := newTestFinder(t, dir, s.URL)
	path := mustFind(t, f, file).Name()
	if err := os.Truncate(path, 1000); err != nil {
		t.Fatal(err)
	}
	f, said := newTestFinder(t, dir, s.URL)
	mustFind(t, f, file)
	if !strings.Contains(said.String(), "damaged") {
		t.Errorf("told %q", said)
	}
}

func TestLocal(t *testing.T) {
	t.Parallel()
	hex := someID.String()
	module := Want{BuildID: someID, Release: some.Release, Module: "snd_hda_intel"}
	for path, w := range map[string]Want{
		".build-id/ab/" + hex[2:] + ".debug":       some,
		"boot/vmlinux-6.1.0-test":                  some,
		"lib/modules/6.1.0-test/vmlinux":           some,
		"usr/lib/modules/6.1.0-test/vmlinux.debug": some,
		"vmlinux": some,
		"lib/modules/6.1.0-test/kernel/sound/snd-hda-intel.ko.debug": module,
		"lib/modules/6.1.0-test/kernel/sound/snd-hda-intel.ko":       module,
		"snd-hda-intel.ko": module,
	} {
		dir := t.TempDir()
		put(t, filepath.Join(dir, path), fileWith(someID, 100))
		f := &Finder{Dirs: []string{filepath.Join(dir, "no"), dir}}
		file, err := f.Find(t.Context(), w)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if file.Name() != filepath.Join(dir, path) || file.Downloaded {
			t.Errorf("got %s, want %s", file.Name(), path)
		}
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}
}

func put(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestOtherBuild: a file of another build is named and not taken, and a release of a hostile dump leads nowhere.
func TestOtherBuild(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, filepath.Join(dir, "boot/vmlinux-6.1.0-test"), fileWith(bytes.Repeat([]byte{9}, 20), 100))
	f := &Finder{Dirs: []string{dir}}
	if why := mustFail(t, f); !strings.Contains(why, "boot/vmlinux-6.1.0-test: it has the build id 0909") {
		t.Errorf("got %q", why)
	}
	put(t, filepath.Join(dir, "x"), fileWith(someID, 100))
	for _, release := range []string{"../../x", "..", "", "a/b", strings.Repeat("x", 300)} {
		if _, err := f.Find(t.Context(), Want{BuildID: someID, Release: release}); err == nil {
			t.Errorf("release %q leads to a file", release)
		}
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
