package groups

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/storage"
)

// whole is a state with everything in it.
func whole() *State {
	ref := storage.Ref{Host: "h", ID: "d"}
	until := begin.AddDate(0, 0, 7)
	return &State{
		Version: stateVersion,
		Signatures: map[string]*Mark{sig("aa"): {
			Note: &Text{"seen on all of rack 7", made}, Ticket: &Text{"https://bugs.example.org/1", made},
			Muted: &Mute{Until: &until, Made: made}, Resolved: &Resolved{Kernels: []string{"6.1.0-10-amd64"}, Seen: []storage.Ref{ref}, Again: &Again{Dump: ref, Kernel: "6.1.0-11-amd64", Time: begin}, Made: made},
		}},
		Changes: []Change{
			{Kind: Merge, Signature: sig("aa"), Other: sig("bb"), Made: made},
			{Kind: Split, Signature: dumpSignature(ref), Other: sig("aa"), Dump: &ref, Made: made},
		},
	}
}

func TestStateFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if st, err := Read(dir); err != nil || len(st.Signatures) > 0 {
		t.Fatalf("a missing file: %+v, %v", st, err)
	}
	if err := Update(dir, func(st *State) error { *st = *whole(); return nil }); err != nil {
		t.Fatal(err)
	}
	got, err := Read(dir)
	if diff := cmp.Diff(whole(), got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	refused := errors.New("no")
	if err := Update(dir, func(st *State) error { *st = State{}; return refused }); !errors.Is(err, refused) {
		t.Error(err)
	}
	if again, err := Read(dir); err != nil || !cmp.Equal(got, again) {
		t.Errorf("after an error: %+v, %v", again, err)
	}
}

// TestDamagedState: a file that this program cannot read, or not all of it, is reported and stays byte for byte.
func TestDamagedState(t *testing.T) {
	good, err := json.Marshal(whole())
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ text, says string }{
		"empty, as after a power cut": {"", "damaged"},
		"torn":                        {string(good[:len(good)/2]), "damaged"},
		"of a later version":          {`{"version": 3, "groups": []}`, "has version 3, and this program knows up to 2"},
		"without version":             {`{}`, "no version"},
		"with an unknown member":      {strings.Replace(string(good), `"note"`, `"owner"`, 1), "unknown field"},
		"with an odd signature":       {strings.Replace(string(good), sig("aa"), "x", 1), `"x" is not a signature`},
		"with an odd change":          {strings.Replace(string(good), `"merge"`, `"move"`, 1), `"move"`},
		"with an odd kernel":          {strings.Replace(string(good), `"6.1.0-10-amd64"`, `"soon"`, 1), `"soon"`},
		"with another dump":           {strings.Replace(string(good), `"dump":{"host":"h","id":"d"},"by"`, `"dump":{"host":"i","id":"d"},"by"`, 1), "dump i/d"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, FileName)
		if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		st, err := Read(dir)
		if !errors.Is(err, ErrState) || !strings.Contains(fmt.Sprint(err), tc.says) || st == nil || len(st.Signatures) > 0 {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
		err = Update(dir, func(*State) error { t.Errorf("%s: changed", name); return nil })
		if now, _ := os.ReadFile(path); !errors.Is(err, ErrState) || string(now) != tc.text {
			t.Errorf("%s: %v, %q", name, err, now)
		}
	}
}

func TestStateIsNoRegularFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, FileName), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir); !errors.Is(err, ErrState) {
		t.Error(err)
	}
}

// TestUpdatesAtOnce: no change of two at once is lost.
func TestUpdatesAtOnce(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for p := range 4 {
		wg.Go(func() {
			for i := range 10 {
				err := Update(dir, func(st *State) error {
					if st.Signatures == nil {
						st.Signatures = map[string]*Mark{}
					}
					st.Signatures[fmt.Sprintf("%08x%08x", p, i)] = &Mark{Note: &Text{"x", made}}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if st, err := Read(dir); err != nil || len(st.Signatures) != 40 {
		t.Errorf("%d, %v", len(st.Signatures), err)
	}
}

// FuzzState: what is read is written and read again as it was.
func FuzzState(f *testing.F) {
	good, err := json.Marshal(whole())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version": 1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		st, err := parseState(text)
		if err != nil {
			return
		}
		text, err = json.Marshal(st)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseState(text)
		if err != nil || !cmp.Equal(st, again) {
			t.Errorf("%v: %s", err, text)
		}
	})
}
