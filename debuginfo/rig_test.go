package debuginfo

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
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
