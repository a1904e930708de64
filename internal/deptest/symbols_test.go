package deptest

import (
	"debug/elf"
	"os/exec"
	"path/filepath"
	"testing"
)

// serving are symbols of a program that serves SSH, SFTP or TLS. Client and server are in the same packages, so only
// the linked symbols tell them apart.
var serving = []string{
	"golang.org/x/crypto/ssh.NewServerConn",
	"golang.org/x/crypto/ssh.(*connection).serverHandshake",
	"golang.org/x/crypto/ssh.(*connection).serverAuthenticate",
	"crypto/tls.(*Conn).serverHandshake",
	"github.com/pkg/sftp.(*Server).Serve",
	"github.com/pkg/sftp.(*RequestServer).Serve",
}

// large are symbols that bring much code into a program, and what to use in their place.
var large = map[string]string{
	"debug/elf.NewFile":       "internal/elf64",
	"debug/elf.(*File).DWARF": "nothing: the sender reads no debugging information",
}

// client are symbols of the client side. They must be there, so the test notices when names change.
var client = []string{
	"golang.org/x/crypto/ssh.NewClientConn",
	"golang.org/x/crypto/ssh.(*connection).clientHandshake",
	"golang.org/x/crypto/ssh.(*connection).clientAuthenticate",
	"crypto/tls.(*Conn).clientHandshake",
	"github.com/pkg/sftp.(*File).WriteAt",
}

func TestSenderServesNothing(t *testing.T) {
	names := symbols(t, "cmd/corehaul-send")
	for _, s := range serving {
		if names[s] {
			t.Errorf("corehaul-send has %s: the capture kernel needs no server", s)
		}
	}
	for s, other := range large {
		if names[s] {
			t.Errorf("corehaul-send has %s, which is large: use %s", s, other)
		}
	}
	for _, s := range client {
		if !names[s] {
			t.Errorf("corehaul-send has no %s: this test looks at the wrong names", s)
		}
	}
}

// symbols builds a program and returns the names in it.
func symbols(t *testing.T, program string) map[string]bool {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", file, module+"/"+program)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", program, err, out)
	}
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only read
	list, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, s := range list {
		names[s.Name] = true
	}
	return names
}
