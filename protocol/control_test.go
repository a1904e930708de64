package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/corehaul/corehaul/uts"
)

func ptr[T any](v T) *T { return &v }

// sampleControls is one full message of each control type.
func sampleControls(tb testing.TB) []control {
	tb.Helper()
	return []control{
		&Hello{
			Version: 1, MaxVersion: 3, Features: []string{"x"}, DumpID: strings.Repeat("0f", 16), Tool: "corehaul-send 1.0",
			Machine: "aarch64", PageSize: 65536, MaxPFN: MaxPFN, RAMBytes: 1 << 40, NrCPUs: 256, CurrentCPU: ptr(uint32(3)),
			Uts:     uts.Name{Sysname: "Linux", Nodename: "web-7", Release: "6.1.0", Version: "#1 SMP <6.1>", Machine: "aarch64", Domainname: "(none)"},
			BuildID: "00ff", CrashTime: 1700000000, PhysBase: ptr(uint64(1<<64 - 1)), Level: 31,
			Encodings: Encodings{EncodingSnappyPage, EncodingZstdBlock}, DeadlineSec: 600, Attempt: 2, Warnings: []string{"no SYMBOL(x)"},
		},
		&LogEnd{Bytes: 5, Sum: 0x0123456789abcdef, Error: "the ring ends early"},
		&LogStored{Bytes: 5},
		&Wait{Place: 3, Of: 17, Reason: "other dumps come first"},
		&Welcome{
			Version: 1, Features: []string{"x"}, Tool: "corehaul 1.0", Host: "web-7.example.org", Collect: CollectEssential, Reason: "little space",
			WindowBytes: 16 << 20, Encodings: Encodings{EncodingSnappyPage}, HeartbeatSec: 5, Plan: &PlanHash{1, 2, 15: 3}, HaveChunks: 12,
		},
		&PlanEnd{
			Hash: PlanHash{1}, Omitted: true, Runs: 3, Kept: 7, Chunks: 2,
			Tiers: []Tier{{"kernel", true, 6, 1}, {"memmap", false, 1, 1}},
			Pages: PageCounts{Total: 32, Kept: 7, Free: 20, Cache: 1, CachePrivate: 1, User: 1, HWPoison: 1, Offline: 1},
			Codec: EncodingSnappyPage, Warnings: []string{"w"},
		},
		&PlanOK{Have: setOf(tb, 0, 1, 2, 9), Collect: CollectAll, Note: "another plan was known"},
		&Finish{Reason: ReasonUnreadable, Text: "EIO", LostPages: 2},
		&Sealed{State: StatePartial, ID: "0f0f", Path: "/var/lib/corehaul/dumps/web-7", Pages: 5, Missing: 2, Bytes: 1 << 20, SHA256: strings.Repeat("ab", 32), Reason: "no room"},
		&wireError{Code: CodeNoSpace, Text: "need 5 GiB, 3 GiB free", Hint: "make room", RetryAfter: 60},
	}
}

func TestControlRoundTrip(t *testing.T) {
	for _, m := range sampleControls(t) {
		t.Run(m.Type().String(), func(t *testing.T) {
			frame := encodeFrame(t, m, Params{})
			got := decodeFrame(t, frame, Params{})
			if diff := cmp.Diff(m, got, equalMessages, cmp.AllowUnexported(wireError{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if again := encodeFrame(t, got, Params{}); !bytes.Equal(again, frame) {
				t.Errorf("encoded again:\n%s\nwas:\n%s", again, frame)
			}
		})
	}
}

// TestControlIgnoresNewMembers is the promise of section 14: members are added
// without a new version.
func TestControlIgnoresNewMembers(t *testing.T) {
	for _, m := range sampleControls(t) {
		payload, err := appendControl(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		longer := append([]byte(` {"new_member":{"a":[1,2,{"b":null}]},`), payload[1:]...)
		got := newControl(m.Type())
		if err := decodeControl(got, longer); err != nil {
			t.Errorf("%s: %v", m.Type(), err)
		}
		if diff := cmp.Diff(m, got, equalMessages); diff != "" {
			t.Errorf("%s (-want +got):\n%s", m.Type(), diff)
		}
	}
}

// TestControlRequires takes each required member away in turn.
func TestControlRequires(t *testing.T) {
	required := map[Type]string{
		TypeHello: "version max_version dump_id tool machine page_size max_pfn nr_cpus", TypeWelcome: "version tool host collect window_bytes",
		TypePlanEnd: "hash kept chunks", TypeFinish: "reason", TypeSealed: "state id", TypeError: "code",
	}
	for _, m := range sampleControls(t) {
		payload, err := appendControl(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range strings.Fields(required[m.Type()]) {
			var members map[string]json.RawMessage
			if err := json.Unmarshal(payload, &members); err != nil {
				t.Fatal(err)
			}
			delete(members, name)
			less, err := json.Marshal(members)
			if err != nil {
				t.Fatal(err)
			}
			if err := decodeControl(newControl(m.Type()), less); err == nil {
				t.Errorf("%s without %s is accepted", m.Type(), name)
			}
		}
	}
}

func TestControlRefuses(t *testing.T) {
	hello := func(change string) string {
		text, err := appendControl(nil, exampleHello())
		if err != nil {
			t.Fatal(err)
		}
		var members map[string]json.RawMessage
		if err := errors.Join(json.Unmarshal(text, &members), json.Unmarshal([]byte(change), &members)); err != nil {
			t.Fatal(err)
		}
		text, err = json.Marshal(members)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	long := strings.Repeat("x", 1025)
	for _, tc := range []struct {
		name    string
		typ     Type
		payload string
		want    Code
	}{
		{"nothing", TypeWait, "", CodeBadMessage},
		{"null", TypeWait, "null", CodeBadMessage},
		{"a list", TypeWait, "[]", CodeBadMessage},
		{"two objects", TypeWait, "{}{}", CodeBadMessage},
		{"cut short", TypeWait, `{"place":1`, CodeBadMessage},
		{"not UTF-8", TypeWait, "{\"reason\":\"\xff\"}", CodeBadMessage},
		{"lone surrogate", TypeWait, `{"reason":"\ud800"}`, CodeBadMessage},
		{"escape sequence", TypeWait, `{"reason":"\u001b[2J"}`, CodeBadMessage},
		{"line end", TypeWait, `{"reason":"a\nb"}`, CodeBadMessage},
		{"C1 control", TypeWait, `{"reason":"\u009b"}`, CodeBadMessage},
		{"direction mark", TypeWait, `{"reason":"\u202e"}`, CodeBadMessage},
		{"text too long", TypeWait, `{"reason":"` + long + `"}`, CodeTooLarge},
		{"negative number", TypeWait, `{"place":-1}`, CodeBadMessage},
		{"number as text", TypeWait, `{"place":"1"}`, CodeBadMessage},
		{"fraction", TypeWait, `{"place":1.5}`, CodeBadMessage},
		{"later version only", TypeHello, hello(`{"version":2,"max_version":4}`), CodeVersion},
		{"later version of another shape", TypeHello, hello(`{"version":2,"max_version":4,"utsname":"x"}`), CodeVersion},
		{"versions reversed", TypeHello, hello(`{"max_version":0}`), CodeBadMessage},
		{"dump id in capitals", TypeHello, hello(`{"dump_id":"` + strings.Repeat("AB", 16) + `"}`), CodeBadMessage},
		{"dump id too short", TypeHello, hello(`{"dump_id":"ab"}`), CodeBadMessage},
		{"dump id with a path", TypeHello, hello(`{"dump_id":"../` + strings.Repeat("a", 29) + `"}`), CodeBadMessage},
		{"page size", TypeHello, hello(`{"page_size":4097}`), CodeBadMessage},
		{"page size beyond 32 bits", TypeHello, hello(`{"page_size":4294971392}`), CodeBadMessage},
		{"max_pfn", TypeHello, hello(`{"max_pfn":1099511627777}`), CodeTooLarge},
		{"CPUs", TypeHello, hello(`{"nr_cpus":20000}`), CodeTooLarge},
		{"level", TypeHello, hello(`{"level":32}`), CodeTooLarge},
		{"nodename too long", TypeHello, hello(`{"utsname":{"nodename":"` + strings.Repeat("n", 65) + `"}}`), CodeTooLarge},
		{"crash time", TypeHello, hello(`{"crash_time":-1}`), CodeBadMessage},
		{"odd build ID", TypeHello, hello(`{"build_id":"abc"}`), CodeBadMessage},
		{"too many warnings", TypeHello, hello(`{"warnings":["` + strings.Repeat(`w","`, 64) + `w"]}`), CodeTooLarge},
		{"deadline", TypeHello, hello(`{"deadline_s":18446744073709551615}`), CodeTooLarge},
		{"log sum", TypeLogEnd, `{"bytes":1,"xxh3":"123"}`, CodeBadMessage},
		{"log size", TypeLogEnd, `{"bytes":99999999999,"xxh3":"0000000000000000"}`, CodeTooLarge},
		{"unknown collect", TypeWelcome, `{"version":1,"tool":"t","host":"h","window_bytes":1,"collect":"most"}`, CodeBadMessage},
		{"collect log with a plan", TypePlanOK, `{"collect":"log"}`, CodeBadMessage},
		{"set not ascending", TypePlanOK, `{"have":[[5,6],[0,1]]}`, CodeBadMessage},
		{"plan without hash", TypePlanEnd, `{"runs":0,"kept":0,"chunks":0,"codec":"none"}`, CodeBadMessage},
		{"tiers that do not add up", TypePlanEnd, `{"hash":"00000000000000000000000000000001","runs":1,"kept":2,"chunks":1,"codec":"none","tiers":[{"name":"a","pages":1,"chunks":1}]}`, CodeBadMessage},
		{"tiers that overflow", TypePlanEnd, `{"hash":"00000000000000000000000000000001","runs":1,"kept":2,"chunks":1,"codec":"none","tiers":[{"name":"a","pages":18446744073709551615,"chunks":1},{"name":"b","pages":3}]}`, CodeTooLarge},
		{"more chunks than pages", TypePlanEnd, `{"hash":"00000000000000000000000000000001","runs":1,"kept":2,"chunks":3,"codec":"none"}`, CodeTooLarge},
		{"essential after others", TypePlanEnd, `{"hash":"00000000000000000000000000000001","runs":1,"kept":2,"chunks":2,"codec":"none","tiers":[{"name":"a","pages":1,"chunks":1},{"name":"b","pages":1,"chunks":1,"essential":true}]}`, CodeBadMessage},
		{"unknown codec", TypePlanEnd, `{"hash":"00000000000000000000000000000001","codec":"xz"}`, CodeBadEncoding},
		{"unknown state", TypeSealed, `{"state":"good","id":"x"}`, CodeBadMessage},
		{"no reason", TypeFinish, `{}`, CodeBadMessage},
		{"code with a line end", TypeError, `{"code":"a\nb"}`, CodeBadMessage},
		{"deep nesting", TypeWait, `{"x":` + strings.Repeat("[", 30000) + strings.Repeat("]", 30000) + `}`, CodeBadMessage},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := decodeControl(newControl(tc.typ), []byte(tc.payload)); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

// TestHelloIsCleaned: what the crashed kernel says cannot stop its dump.
func TestHelloIsCleaned(t *testing.T) {
	h := exampleHello()
	h.Uts.Nodename = "evil\x1b[2J\u202e\n" + strings.Repeat("é", 40)
	h.Warnings = append(slicesOf("", "a\tb", strings.Repeat("w", 5000)), make([]string, 100)...)
	got := decodeFrame(t, encodeFrame(t, h, Params{}), Params{}).(*Hello)
	if want := "evil?[2J??" + strings.Repeat("é", 27); got.Uts.Nodename != want {
		t.Errorf("nodename: got %q, want %q", got.Uts.Nodename, want)
	}
	if len(got.Warnings) != 2 || got.Warnings[0] != "a?b" || len(got.Warnings[1]) != maxText {
		t.Errorf("warnings: got %d: %.40q", len(got.Warnings), got.Warnings)
	}
}

func slicesOf(s ...string) []string { return s }

func TestVersionsAreFilledIn(t *testing.T) {
	h := exampleHello()
	h.Version, h.MaxVersion = 0, 0
	if got := decodeFrame(t, encodeFrame(t, h, Params{}), Params{}).(*Hello); got.Version != 1 || got.MaxVersion != Version {
		t.Errorf("got versions %d to %d", got.Version, got.MaxVersion)
	}
}

func TestEncodings(t *testing.T) {
	var es Encodings
	if err := json.Unmarshal([]byte(`["zstd-page","xz-page","none","zstd-page"]`), &es); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(es, Encodings{EncodingZstdPage, EncodingNone}) {
		t.Errorf("got %v, want the two that are known, once each", es)
	}
	if !es.Has(EncodingNone) || !(Encodings{}).Has(EncodingNone) || es.Has(EncodingSnappyPage) {
		t.Error("Has is wrong")
	}
	if got := es.Common(Encodings{EncodingSnappyPage, EncodingZstdPage}); !slices.Equal(got, Encodings{EncodingZstdPage}) {
		t.Errorf("in common: %v", got)
	}
	if text, err := json.Marshal(struct{ E Encodings }{}); err != nil || string(text) != `{"E":[]}` {
		t.Errorf("no encodings: %s, %v", text, err)
	}
	if _, err := json.Marshal(Encodings{9}); err == nil {
		t.Error("an unknown encoding was written")
	}
}

func TestErrors(t *testing.T) {
	cause := errors.New("disk full")
	err := fmt.Errorf("chunk 3: %w", Errorf(CodeNoSpace, "cannot write: %w", cause))
	if !errors.Is(err, CodeNoSpace) || errors.Is(err, CodeBusy) || !errors.Is(err, cause) {
		t.Errorf("%v: wrong code or cause", err)
	}
	if w := wireErrorOf(cause); w.Code != CodeInternal || strings.Contains(w.Text, "disk") {
		t.Errorf("an internal error tells the peer %+v", w)
	}
	w := wireErrorOf(&Error{Code: CodeBusy, RetryAfter: 1500 * time.Millisecond})
	if e := w.remote(); e.RetryAfter != 2*time.Second || !e.Remote || !errors.Is(e, CodeBusy) {
		t.Errorf("got %+v", e)
	}
	if w := wireErrorOf(w.remote()); w.Code != CodeInternal {
		t.Errorf("the peer's own error goes back as %+v", w)
	}
}

func TestDumpID(t *testing.T) {
	id := DumpID([]byte("a"), []byte("b"), []byte("c"))
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		t.Errorf("got %q", id)
	}
	for _, other := range []string{
		DumpID([]byte("ab"), nil, []byte("c")), DumpID([]byte("a"), []byte("c"), []byte("b")), DumpID([]byte("a"), []byte("b"), nil),
	} {
		if other == id {
			t.Errorf("%s for different dumps", id)
		}
	}
}
