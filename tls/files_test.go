package tls

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/corehaul/corehaul/hostname"
)

func TestInitCA(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "ca")
	pin, err := InitCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{
		".": 0o700 | fs.ModeDir, "ca.crt": 0o644, "ca.key": 0o600, "receiver.crt": 0o644, "receiver.key": 0o600,
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s: got rights %v, want %v", name, info.Mode(), want)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 4 {
		t.Errorf("left %v, %v; want four files", entries, err)
	}
	r, err := LoadReceiver(dir)
	if err != nil {
		t.Fatal(err)
	}
	if PinOf(r.Certificate.Leaf) != pin {
		t.Errorf("got pin %s, want %s", pin, PinOf(r.Certificate.Leaf))
	}
	for _, cert := range []*x509.Certificate{r.CA, r.Certificate.Leaf} {
		if !cert.NotBefore.Equal(time.Unix(0, 0)) || cert.NotAfter.Year() != 9999 {
			t.Errorf("%s is valid from %v to %v", cert.Subject, cert.NotBefore, cert.NotAfter)
		}
	}
}

// /etc/corehaul, made with /etc/corehaul/ca, must let the service's user through.
func TestInitCAClosesItsOwnDirectoryOnly(t *testing.T) {
	tmp := t.TempDir()
	above, ordinary := filepath.Join(tmp, "etc", "corehaul"), filepath.Join(tmp, "ordinary")
	if err := os.Mkdir(ordinary, 0o755); err != nil {
		t.Fatal(err)
	}
	like, err := os.Stat(ordinary) // the umask has its say
	if err != nil {
		t.Fatal(err)
	}
	if _, err := InitCA(filepath.Join(above, "ca")); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]os.FileMode{above: like.Mode().Perm(), filepath.Join(above, "ca"): 0o700} {
		fi, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := fi.Mode().Perm(); got != want {
			t.Errorf("%s has mode %03o, want %03o", dir, got, want)
		}
	}
}

func TestInitCADoesNotOverwrite(t *testing.T) {
	dir := t.TempDir()
	if _, err := InitCA(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{caCertFile, caKeyFile, receiverCertFile, receiverKeyFile} {
		alone := t.TempDir()
		if err := os.WriteFile(filepath.Join(alone, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		wantFileError(t, name, justErr(InitCA(alone)), name, fs.ErrExist)
		if entries, err := os.ReadDir(alone); err != nil || len(entries) != 1 {
			t.Errorf("%s: left %v, %v", name, entries, err)
		}
	}
}

func justErr[T any](_ T, err error) error { return err }

// wantFileError wants a FileError about the file with the given name that tells what to do.
func wantFileError(t *testing.T, what string, err error, name string, cause error) {
	t.Helper()
	e, ok := errors.AsType[*FileError](err)
	switch {
	case !ok:
		t.Errorf("%s: got %v, want a FileError", what, err)
	case filepath.Base(e.Path) != name, !strings.Contains(e.Error(), e.Path):
		t.Errorf("%s: %q names the wrong file, want %s", what, e, name)
	case len(e.Hints()) == 0:
		t.Errorf("%s: %q does not say what to do", what, e)
	case cause != nil && !errors.Is(err, cause):
		t.Errorf("%s: %q is not %v", what, e, cause)
	}
}

func TestIssueHost(t *testing.T) {
	s := newSite(t, "h")
	long := strings.Repeat("a", hostname.MaxLen)
	for _, host := range []string{"web-7.example.org", "A_b-9", "7", "_build7", "a..b", "a.", long} {
		id := s.issue(t, host)
		if id.Host != host || len(id.Pins) != 1 || id.Pins[0] != PinOf(s.receiver.Certificate.Leaf) {
			t.Errorf("got host %q with %v", id.Host, id.Pins)
		}
		if got := dial(t, "127.0.0.1:0", s.receiver.ServerConfig(), ClientConfig(id)); got.host != host || got.client != nil {
			t.Errorf("%.20s: got %+v", host, got)
		}
	}
}

// TestBadHostNames has names for which no identity is issued, and one that an earlier version issued.
func TestBadHostNames(t *testing.T) {
	s := newSite(t, "h")
	long := strings.Repeat("a", hostname.MaxLen+1)
	for _, bad := range []string{"", ".", "..", ".a", "-a", "../a", "a/b", "a b", "a\x00b", "a\nb", "ä", "a:b", "a*", "~", "a\x1b[2J", long} {
		data, err := IssueHost(s.dir, bad)
		if e, ok := errors.AsType[*hostname.Error](err); !ok || e.Name != bad || data != nil {
			t.Errorf("%q: got %v, want an Error of hostname", bad, err)
		}
	}
	ca, err := loadPair(s.dir, caCertFile, caKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := newSigned(hostTemplate(long), ca)
	if err != nil {
		t.Fatal(err)
	}
	id := &Identity{Certificate: leaf.pair().tls(), Pins: []Pin{PinOf(s.receiver.Certificate.Leaf)}}
	got := dial(t, "127.0.0.1:0", s.receiver.ServerConfig(), ClientConfig(id))
	if e, ok := errors.AsType[*UntrustedError](got.server); !ok || !strings.Contains(e.Error(), "65 bytes, more than 64; issue an identity") {
		t.Errorf("got %v, want an UntrustedError that says what to do", got.server)
	}
	key, err := keyPEM(leaf.key)
	if err != nil {
		t.Fatal(err)
	}
	_, err = parseIdentity("identity", bytes.Join([][]byte{certPEM(leaf.cert), key, certPEM(ca.cert), pinPEM(id.Pins[0])}, nil))
	if e, ok := errors.AsType[*FileError](err); !ok || len(e.Hints()) == 0 || !strings.Contains(e.Error(), "65 bytes") {
		t.Errorf("got %v, want a FileError that says what to do", err)
	}
}

func TestWriteIdentity(t *testing.T) {
	s := newSite(t, "h")
	data, err := IssueHost(s.dir, "web-7")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "web-7.pem")
	if err := WriteIdentity(path, data); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("got %v, %v; want rights 0600", info.Mode(), err)
	}
	wantFileError(t, "second write", WriteIdentity(path, []byte("x")), "web-7.pem", fs.ErrExist)
	id, err := LoadIdentity(path)
	if err != nil || id.Host != "web-7" {
		t.Errorf("got %+v, %v", id, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left %v, %v", entries, err)
	}
}

// blocks are the PEM blocks of an identity file, in order: certificate, key, CA, pin.
func blocks(tb testing.TB, data []byte) [][]byte {
	tb.Helper()
	var all [][]byte
	for {
		b, rest := pem.Decode(data)
		if b == nil {
			return all
		}
		all = append(all, pem.EncodeToMemory(b))
		data = rest
	}
}

func TestIdentityRefuses(t *testing.T) {
	s, other := newSite(t, "h"), newSite(t, "h")
	raw, err := IssueHost(s.dir, "h")
	if err != nil {
		t.Fatal(err)
	}
	rawOther, err := IssueHost(other.dir, "h")
	if err != nil {
		t.Fatal(err)
	}
	p, o := blocks(t, raw), blocks(t, rawOther)
	receiver := certPEM(s.receiver.Certificate.Leaf)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	block := func(typ string, n int) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: make([]byte, n)})
	}
	for _, tc := range []struct {
		name string
		data []byte
	}{
		{"text", []byte("hello")},
		{"binary", bytes.Repeat([]byte{0xff, 0}, 1000)},
		{"no certificate", join(p[1], p[3])},
		{"no key", join(p[0], p[2], p[3])},
		{"no CA", join(p[0], p[1], p[3])},
		{"no pin", join(p[0], p[1], p[2])},
		{"two keys", join(p[0], p[1], p[1], p[2], p[3])},
		{"key of another", join(p[0], o[1], p[2], p[3])},
		{"CA of another", join(p[0], p[1], o[2], p[3])},
		{"CA before the host", join(p[2], p[1], p[0], p[3])},
		{"short pin", join(p[0], p[1], p[2], block(blockPin, 31))},
		{"long pin", join(p[0], p[1], p[2], block(blockPin, 33))},
		{"broken certificate", join(block(blockCert, 100), p[1], p[2], p[3])},
		{"broken key", join(p[0], block(blockKey, 100), p[2], p[3])},
		{"unknown block", join(p[0], p[1], p[2], p[3], block("X509 CRL", 10))},
		{"cut in the last block", raw[:len(raw)-20]},
		{"receiver's certificate", join(receiver, p[1], p[2], p[3])},
		{"too many blocks", bytes.Repeat(p[3], maxBlocks+1)},
		{"too large", bytes.Repeat([]byte("#"), maxFile+1)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id, err := parseIdentity("identity", tc.data)
			wantFileError(t, "bytes", err, "identity", nil)
			path := filepath.Join(t.TempDir(), "id.pem")
			if err := os.WriteFile(path, tc.data, 0o600); err != nil {
				t.Fatal(err)
			}
			fromFile, err := LoadIdentity(path)
			wantFileError(t, "file", err, "id.pem", nil)
			if id != nil || fromFile != nil {
				t.Error("an identity beside the error")
			}
		})
	}
	if _, err := parseIdentity("identity", raw); err != nil {
		t.Errorf("the undamaged file: %v", err)
	}
	wantFileError(t, "missing", justErr(LoadIdentity(filepath.Join(t.TempDir(), "none.pem"))), "none.pem", fs.ErrNotExist)
	wantFileError(t, "directory", justErr(LoadIdentity(s.dir)), filepath.Base(s.dir), nil)
}

func TestLoadReceiverRefuses(t *testing.T) {
	other := newSite(t, "h")
	read := func(dir, name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for _, name := range []string{caCertFile, receiverCertFile, receiverKeyFile} {
		for what, data := range map[string][]byte{
			"missing": nil, "empty": {}, "text": []byte("hello"), "damaged": read(other.dir, name)[:60],
			"two": bytes.Repeat(read(other.dir, name), 2),
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				s := newSite(t, "h")
				path := filepath.Join(s.dir, name)
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				if data != nil {
					if err := os.WriteFile(path, data, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				wantFileError(t, what, justErr(LoadReceiver(s.dir)), name, nil)
				wantFileError(t, what, justErr(ServerConfig(s.dir)), name, nil)
			})
		}
	}
	replace := func(name, with string) error {
		s := newSite(t, "h")
		if err := os.WriteFile(filepath.Join(s.dir, name), read(other.dir, with), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadReceiver(s.dir)
		return err
	}
	wantFileError(t, "key of another", replace(receiverKeyFile, receiverKeyFile), receiverKeyFile, nil)
	wantFileError(t, "receiver's certificate for the CA's", replace(caCertFile, receiverCertFile), caCertFile, nil)
}

// TestServeNeedsNoCAKey: the CA's key may be kept elsewhere.
func TestServeNeedsNoCAKey(t *testing.T) {
	s := newSite(t, "h")
	if err := os.Remove(filepath.Join(s.dir, caKeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := ServerConfig(s.dir); err != nil {
		t.Errorf("got %v", err)
	}
	wantFileError(t, "issue", justErr(IssueHost(s.dir, "x")), caKeyFile, fs.ErrNotExist)
}

func FuzzIdentity(f *testing.F) {
	dir := f.TempDir() + "/ca"
	if _, err := InitCA(dir); err != nil {
		f.Fatal(err)
	}
	data, err := IssueHost(dir, "web-7")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	for _, b := range blocks(f, data) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		id, err := parseIdentity("identity", data)
		if (id == nil) == (err == nil) {
			t.Fatalf("got %v and %v", id, err)
		}
		if id != nil && (hostname.Check(id.Host) != nil || len(id.Pins) == 0) {
			t.Fatalf("got host %q with %d pins", id.Host, len(id.Pins))
		}
	})
}
