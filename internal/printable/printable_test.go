package printable

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// steering are characters that must not reach a terminal, of every kind that there is.
var steering = map[string]string{
	"C0: bell":                         "\a",
	"C0: carriage return":              "\r",
	"C0: escape":                       "\x1b",
	"DEL":                              "\x7f",
	"C1: first":                        "\u0080",
	"C1: next line":                    "\u0085",
	"C1: DCS":                          "\u0090",
	"C1: CSI":                          "\u009b",
	"C1: OSC":                          "\u009d",
	"C1: last":                         "\u009f",
	"C1 as a byte: CSI":                "\x9b",
	"C1 as a byte: OSC":                "\x9d",
	"byte that is no UTF-8":            "\xff",
	"overlong escape":                  "\xc0\x9b",
	"half a character":                 "\xe2\x80",
	"surrogate":                        "\xed\xa0\x80",
	"beyond Unicode":                   "\xf4\x90\x80\x80",
	"no-break space":                   "\u00a0",
	"soft hyphen":                      "\u00ad",
	"Arabic letter mark":               "\u061c",
	"zero-width space":                 "\u200b",
	"zero-width joiner":                "\u200d",
	"left-to-right mark":               "\u200e",
	"right-to-left mark":               "\u200f",
	"line separator":                   "\u2028",
	"paragraph separator":              "\u2029",
	"left-to-right embedding":          "\u202a",
	"pop directional formatting":       "\u202c",
	"right-to-left override":           "\u202e",
	"word joiner":                      "\u2060",
	"left-to-right isolate":            "\u2066",
	"pop directional isolate":          "\u2069",
	"private use":                      "\ue000",
	"byte order mark":                  "\ufeff",
	"interlinear annotation":           "\ufff9",
	"not assigned":                     "\U000e0080",
	"tag":                              "\U000e0041",
	"private use in the highest plane": "\U0010fffd",
}

// shown are texts that stay as they are.
var shown = []string{"", "plain", "größe", "日本語", "עברית", "e\u0301", "☃ 😀", "a\ufffdb"}

func TestSteeringCharacters(t *testing.T) {
	for name, s := range steering {
		text := "a" + s + "b"
		for what, got := range map[string]string{"Escape": Escape(text), "Clean": Clean(text, 100), "NewText": written(t, NewText, text, 1)} {
			if !utf8.ValidString(got) || !strings.HasPrefix(got, "a") || !strings.HasSuffix(got, "b") || len(got) < 3 {
				t.Errorf("%s: %s gives %q", name, what, got)
			}
			for _, r := range got {
				if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs) || r == utf8.RuneError {
					t.Errorf("%s: %s lets %U through", name, what, r)
				}
			}
		}
		if String(text) {
			t.Errorf("%s: passes for text that may be shown", name)
		}
		if got, want := Escape(s), written(t, NewText, s, 100); got != want || !strings.HasPrefix(got, `\x`) {
			t.Errorf("%s: escaped as %q and, by a Writer, as %q", name, got, want)
		}
	}
	for _, s := range shown {
		if got := Escape(s); got != s {
			t.Errorf("%q is escaped as %q", s, got)
		}
		if got := written(t, NewText, s+"\t\n", 1); got != s+"\t\n" {
			t.Errorf("%q is written as %q", s, got)
		}
		if got := Clean(s, 100); got != s && !strings.Contains(s, "\ufffd") {
			t.Errorf("%q is cleaned to %q", s, got)
		}
	}
}

// written returns what a Writer makes of s in pieces of n bytes.
func written(t *testing.T, open func(io.Writer) *Writer, s string, n int) string {
	t.Helper()
	var out bytes.Buffer
	w := open(&out)
	for at := 0; at < len(s); at += n {
		piece := s[at:min(at+n, len(s))]
		if k, err := io.WriteString(w, piece); err != nil || k != len(piece) {
			t.Fatalf("write: %d, %v", k, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// A JSON document says the same once it is escaped, and no character of it can steer a terminal.
func TestJSON(t *testing.T) {
	for name, s := range steering {
		doc, err := json.MarshalIndent(map[string]string{"text": "a" + s + "b"}, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		got := written(t, NewJSON, string(doc), 1)
		var before, after map[string]string
		if err := errors.Join(json.Unmarshal(doc, &before), json.Unmarshal([]byte(got), &after)); err != nil || before["text"] != after["text"] {
			t.Errorf("%s: %q became %q, %v", name, before["text"], after["text"], err)
		}
		for _, r := range got {
			if !Rune(r) && r != '\n' && r != '\t' {
				t.Errorf("%s: %U is written", name, r)
			}
		}
	}
}

func TestClean(t *testing.T) {
	for _, tc := range []struct {
		in    string
		limit int
		want  string
	}{
		{"größe", 3, "gr"}, {"größe", 4, "grö"}, {"größe", 100, "größe"}, {"日本", 2, ""}, {"a\ufffd\xffb", 9, "a??b"}, {"\x1b[2J", 2, "?["},
	} {
		if got := Clean(tc.in, tc.limit); got != tc.want || Clean(got, tc.limit) != got {
			t.Errorf("%q, %d: got %q, want %q", tc.in, tc.limit, got, tc.want)
		}
	}
}

func TestWriterErrors(t *testing.T) {
	broken := errors.New("broken")
	w := NewText(failing{broken})
	if _, err := w.Write([]byte("a")); !errors.Is(err, broken) {
		t.Errorf("write: %v", err)
	}
	w.rest = []byte("\xe2")
	if err := w.Close(); !errors.Is(err, broken) {
		t.Errorf("close: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// FuzzWriter holds that it makes no difference how a text is cut into writes, and that nothing steers a terminal.
func FuzzWriter(f *testing.F) {
	for _, s := range steering {
		f.Add(s+"text", uint8(1))
	}
	f.Fuzz(func(t *testing.T, s string, n uint8) {
		got := written(t, NewText, s, int(n)+1)
		if got != written(t, NewText, s, len(s)+1) {
			t.Errorf("%q: pieces of %d make a difference", s, n)
		}
		for _, r := range got {
			if !Rune(r) && r != '\n' && r != '\t' {
				t.Errorf("%q: %U is written", s, r)
			}
		}
		if !strings.ContainsAny(s, "\n\t") && got != Escape(s) {
			t.Errorf("%q: written as %q, escaped as %q", s, got, Escape(s))
		}
	})
}
