package kexec

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/corehaul/corehaul/sender/arm/kexec/kexectest"
)

// bzImage makes the header of a bzImage by Documentation/arch/x86/boot.rst.
func bzImage(release string, protocol uint16, cmdline, memory uint32) []byte {
	b := make([]byte, 0x400)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x206:], protocol)
	binary.LittleEndian.PutUint16(b[0x20e:], 0x100)
	binary.LittleEndian.PutUint32(b[0x238:], cmdline)
	binary.LittleEndian.PutUint32(b[0x260:], memory)
	copy(b[0x300:], release+" (builder@host) #1 SMP\x00")
	return b
}

func armImage(banner string, memory uint64) []byte {
	b := make([]byte, 0x40)
	binary.LittleEndian.PutUint64(b[0x10:], memory)
	copy(b[0x38:], "ARM\x64")
	return append(b, banner...)
}

func TestReadImage(t *testing.T) {
	for _, tc := range []struct {
		name string
		file []byte
		want Image
	}{
		{"bzImage", bzImage("6.1.0-57-cloud-amd64", 0x20f, 2047, 0x3378000), Image{"6.1.0-57-cloud-amd64", 0x3378000, true, 2047}},
		{"bzImage before init_size", bzImage("2.6.28", 0x209, 255, 1), Image{Release: "2.6.28"}},
		{"bzImage with a version outside", bzImage("x", 0x20f, 2047, 1)[:0x280], Image{Memory: 1, Unpacks: true, CmdlineMax: 2047}},
		{
			"arm64", armImage("%s version %s\x00Linux version %s\x00Linux version 6.12.41+deb13-arm64 (gcc)\n", 0x2000000),
			Image{"6.12.41+deb13-arm64", 0x2000000, false, armCmdlineMax},
		},
		{"arm64 without a banner", armImage("Linux version ", 7), Image{Memory: 7, CmdlineMax: armCmdlineMax}},
		{"ELF", []byte("\x7fELF"), Image{}},
		{"nothing", nil, Image{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := ReadImage(tc.file); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func FuzzReadImage(f *testing.F) {
	f.Add(bzImage("6.1.0", 0x20f, 2047, 1<<20))
	f.Add(armImage("Linux version 6.1", 1))
	f.Fuzz(func(t *testing.T, file []byte) {
		i := ReadImage(file)
		if len(i.Release) >= maxRelease || i.CmdlineMax < 0 || i.CmdlineMax > 1<<16 {
			t.Fatalf("%+v", i)
		}
		for _, c := range []byte(i.Release) {
			if c <= ' ' || c > '~' {
				t.Fatalf("release %q", i.Release)
			}
		}
	})
}

func TestFind(t *testing.T) {
	const base = 0x100000
	memory := make([]byte, 5*searchStep/2)
	copy(memory[3:], "first")
	copy(memory[len(memory)-searchStep-3:], "across")
	copy(memory[len(memory)-4:], "last")
	root := t.TempDir()
	kexectest.Core(t, root, map[uint64][]byte{base: memory, 0x10000000: []byte("elsewhere")})
	end := base + uint64(len(memory))
	for text, want := range map[string]uint64{"first": base + 3, "across": end - searchStep - 3, "last": end - 4} {
		if at, ok, err := Find(root, base, end, []byte(text)); at != want || !ok || err != nil {
			t.Errorf("%s: got %#x, %t, %v, want %#x", text, at, ok, err, want)
		}
	}
	if at, ok, err := Find(root, base, end, []byte("elsewhere")); ok || err != nil {
		t.Errorf("what is elsewhere: got %#x, %t, %v", at, ok, err)
	}
	if at, ok, err := Find(root, base+4, end, []byte("first")); ok || err != nil {
		t.Errorf("what begins before: got %#x, %t, %v", at, ok, err)
	}
	for _, area := range [][2]uint64{{base, end + 1}, {0, base}, {end, base}, {1 << 40, 1<<40 + 1}} {
		if at, ok, err := Find(root, area[0], area[1], []byte("first")); ok || !errors.Is(err, ErrNoMemory) {
			t.Errorf("%#x: got %#x, %t, %v, want ErrNoMemory", area, at, ok, err)
		}
	}
	if _, _, err := Find(t.TempDir(), base, end, []byte("first")); !errors.Is(err, ErrNoMemory) {
		t.Errorf("without kcore: %v", err)
	}
}

func TestInMemory(t *testing.T) {
	f, err := InMemory("test", func(w io.Writer) error {
		_, err := io.WriteString(w, "text")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	got, err := io.ReadAll(f)
	if err != nil || string(got) != "text" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := f.WriteString("more"); err == nil {
		t.Error("the file can be written to: the kernel refuses it then")
	}
	// Another program reads it by the path that kexec(8) gets.
	cmd := exec.CommandContext(t.Context(), "cat", "/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{f}
	if out, err := cmd.Output(); err != nil || string(out) != "text" {
		t.Errorf("a child reads %q, %v", out, err)
	}
	if _, err := InMemory("test", func(io.Writer) error { return io.ErrShortWrite }); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("got %v", err)
	}
}

func TestLock(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "sys/kernel"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, loadedFile), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	unlock, err := Lock(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(root); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v, want ErrLocked", err)
	}
	unlock()
	unlock, err = Lock(root)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	if loaded, err := Loaded(root); !loaded || err != nil {
		t.Errorf("got %t, %v", loaded, err)
	}
}
