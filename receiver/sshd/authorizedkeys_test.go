package sshd

import (
	"crypto/ed25519"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// testKey returns the signer of a new key and its line without a comment.
func testKey(tb testing.TB) (ssh.Signer, string) {
	tb.Helper()
	_, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(priv)
	if err != nil {
		tb.Fatal(err)
	}
	return s, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey())))
}

func TestKeyLine(t *testing.T) {
	_, key := testKey(t)
	for _, tc := range []struct {
		line, host string
		legacy     []string
	}{
		{key + " web-17", "web-17", nil},
		{"  " + key + "\tweb-17  ", "web-17", nil},
		{`host="web-18" ` + key + " root@web-17", "web-18", nil},
		{`restrict,HOST="a.b",no-pty,legacy="ssh-rsa,hmac-sha1-96" ` + key, "a.b", []string{"ssh-rsa", "hmac-sha1-96"}},
	} {
		e, problem, _ := parseKeyLine([]byte(tc.line))
		if problem != "" || e.Host != tc.host || !slices.Equal(e.Legacy, tc.legacy) {
			t.Errorf("%q: got %+v, %q", tc.line, e, problem)
		}
	}
	for line, want := range map[string]string{
		key:                            `"" is not a valid host name`,
		key + " root@web-17":           `"root@web-17" is not a valid host name`,
		key + " ..":                    `".." is not a valid`,
		`host="../x" ` + key + " a":    `host="../x" is not a valid`,
		`host=web ` + key:              "not quoted",
		`command="id" ` + key + " a":   `command`,
		`from="10.0.0.1" ` + key:       `from`,
		`pty,host="a" ` + key:          `option "pty"`,
		`legacy="rot13" ` + key + " a": `"rot13" is not a legacy algorithm`,
		"ssh-ed25519 AAAA web":         "not a public key",
		"ssh-rsa " + strings.Fields(key)[1] + " web": "not a public key",
		"gibberish": "not a public key",
	} {
		if e, problem, _ := parseKeyLine([]byte(line)); e != nil || !strings.Contains(problem, want) {
			t.Errorf("%q: got %+v, %q, want %q", line, e, problem, want)
		}
	}
}

func FuzzKeyLine(f *testing.F) {
	_, key := testKey(f)
	f.Add([]byte(key + " web-17\n# comment\n"))
	f.Add([]byte(`host="a",legacy="ssh-rsa",restrict ` + key + "\n" + key + " b"))
	f.Add([]byte("host=\"\\\" \n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		table, bad := parseKeys("f", text)
		for id, e := range table {
			if e.Host == "" || id != string(e.Key.Marshal()) || e.Line < 1 {
				t.Errorf("let in %+v", e)
			}
		}
		for _, b := range bad {
			if b.Problem == "" || b.Line < 1 {
				t.Errorf("bad line %+v", b)
			}
		}
	})
}

func TestKeysFile(t *testing.T) {
	a, lineA := testKey(t)
	b, lineB := testKey(t)
	path := filepath.Join(t.TempDir(), "authorized_keys")
	write := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.DiscardHandler)
	if _, err := LoadKeys(path, log); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	write(lineA + " a\n\n# x\n" + lineB + " not a host\n")
	var bad *LineError
	if _, err := LoadKeys(path, log); !errors.As(err, &bad) || bad.Line != 4 || bad.Path != path || len(bad.Hints()) != 1 {
		t.Errorf("a bad line at the start: %v", err)
	}
	write(lineA + " a\n" + `legacy="ssh-rsa" ` + lineB + " b\n")
	keys, err := LoadKeys(path, log)
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, want ...string) {
		t.Helper()
		for i, key := range []ssh.PublicKey{a.PublicKey(), b.PublicKey()} {
			got := ""
			if e := keys.Find(key); e != nil {
				got = e.Host
			}
			if got != want[i] {
				t.Errorf("%s: key %d is of %q, want %q", when, i, got, want[i])
			}
		}
	}
	check("at the start", "a", "b")
	if got := keys.Legacy(); !slices.Equal(got, []string{"ssh-rsa"}) {
		t.Errorf("legacy algorithms %q", got)
	}
	write(lineA + " a\n" + lineB + " bad host\n")
	check("with a bad line", "a", "")
	write(lineA + " a\n" + lineB + " b\n" + lineA + " c\n")
	check("with a key of two hosts", "", "b")
	write(lineB + " b\n")
	check("without a", "", "b")
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	check("with a file that all may write", "", "")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	check("without a file", "", "")
	write(lineA + " a\n" + lineB + " b\n")
	check("mended", "a", "b")
}

func TestHostKeys(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadHostKeys(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no keys yet: %v", err)
	}
	var before []ssh.Signer
	for range 2 {
		if err := MakeHostKeys(dir); err != nil {
			t.Fatal(err)
		}
		keys, err := LoadHostKeys(dir)
		if err != nil || len(keys) != len(hostKeyKinds) {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		for i, k := range before {
			if string(k.PublicKey().Marshal()) != string(keys[i].PublicKey().Marshal()) {
				t.Errorf("key %d is another one at the second start", i)
			}
		}
		before = keys
	}
	path := filepath.Join(dir, hostKeyKinds[0].file)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	for _, damage := range []string{"", "-----BEGIN OPENSSH PRIVATE KEY-----\n"} {
		if err := os.WriteFile(path, []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := MakeHostKeys(dir); err != nil {
			t.Error(err)
		}
		if _, err := LoadHostKeys(dir); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("a damaged key: %v", err)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != damage {
			t.Errorf("a damaged key was replaced: %q, %v", text, err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, hostKeyKinds[1].file), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := MakeHostKeys(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadHostKeys(dir); err == nil || !strings.Contains(err.Error(), "open to others") {
		t.Errorf("a key that others may read: %v", err)
	}
}

// TestUseAnotherFile has another file of keys count: those of the first one are unknown.
func TestUseAnotherFile(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	load := func() (ssh.Signer, *Keys) {
		signer, line := testKey(t)
		path := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(path, []byte(line+" web-17\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		keys, err := LoadKeys(path, log)
		if err != nil {
			t.Fatal(err)
		}
		return signer, keys
	}
	first, keys := load()
	second, other := load()
	keys.Use(other)
	if keys.Find(first.PublicKey()) != nil || keys.Find(second.PublicKey()) == nil {
		t.Error("want the key of the second file, and not that of the first")
	}
	var hosts []string
	keys.Each(func(e *Entry) { hosts = append(hosts, e.Host) })
	if !slices.Equal(hosts, []string{"web-17"}) {
		t.Errorf("hosts %v", hosts)
	}
}
