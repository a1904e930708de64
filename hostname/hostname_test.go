package hostname

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/internal/printable"
)

func TestCheck(t *testing.T) {
	for _, name := range []string{
		"a", "7", "web-7.example.org", "A_b-9", strings.Repeat("a", MaxLen),
		"_build7",          // certificates and depots had it, the store did not
		"a..b", "a.", "a-", // the store had them, certificates did not
		"ip-192.0.2.1", "ip-fe80--1",
	} {
		if err := Check(name); err != nil {
			t.Error(err)
		}
	}
	for name, reason := range map[string]string{
		"": "empty", ".": "begins with", "..": "begins with", ".a": "begins with", "-a": "begins with", "../a": "begins with",
		strings.Repeat("a", MaxLen+1): "65 bytes", "/": "characters", "a/b": "characters", "a\\b": "characters", "a b": "characters",
		"a\x00b": "characters", "a\nb": "characters", "ä": "characters", "a:b": "characters", "a*": "characters", "~": "characters",
		"a\x1b[2J": "characters", "a\xff": "characters", " a": "characters",
	} {
		err := Check(name)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Name != name || !strings.Contains(err.Error(), reason) || len(e.Hints()) != 1 {
			t.Errorf("%q: got %v, want an Error with %q", name, err, reason)
		}
	}
}

// FuzzCheck holds what makes a name safe: it is one element of a path, short, printable, and no option of a command.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{"web-7", "_build7", "a..b", "..", "a/b", "-a", "\xff", strings.Repeat("é", 40)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		err := Check(name)
		if err != nil {
			if text := err.Error(); len(text) > 1000 || printable.Clean(text, len(text)) != text {
				t.Errorf("%q is refused with %q", name, text)
			}
			return
		}
		if len(name) > MaxLen || name[0] == '-' || name[0] == '.' || printable.Clean(name, MaxLen) != name ||
			!filepath.IsLocal(name) || filepath.Base(name) != name || filepath.Clean("/d/"+name) != "/d/"+name {
			t.Errorf("%q is taken", name)
		}
	})
}
