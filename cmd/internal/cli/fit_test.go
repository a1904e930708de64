package cli

import (
	"strings"
	"testing"
)

// narrowTerminal is a terminal of so many columns.
type narrowTerminal struct {
	strings.Builder

	columns int
}

func (n *narrowTerminal) Columns() int { return n.columns }

func TestTableFits(t *testing.T) {
	for _, tc := range []struct {
		name    string
		columns int
		want    string
	}{
		{"a file gets all", 0, "ID        STATE     PAGES      TITLE\nabcdefgh  complete  1000/2000  BUG: a title of seven words 今日は\n"},
		{"all fits", 65, "ID        STATE     PAGES      TITLE\nabcdefgh  complete  1000/2000  BUG: a title of seven words 今日は\n"},
		{"the last column is cut", 60, "ID        STATE     PAGES      TITLE\nabcdefgh  complete  1000/2000  BUG: a title of seven words …\n"},
		{"a column is left out", 50, "ID        STATE     TITLE\nabcdefgh  complete  BUG: a title of seven words …\n" +
			"… no room for PAGES; '| cat' at the end of the\n  command shows all\n"},
		{"two are left out", 38, "ID        TITLE\nabcdefgh  BUG: a title of seven words…\n" +
			"… no room for PAGES, STATE; '| cat' at\n  the end of the command shows all\n"},
		{"all are cut", 12, "ID     TITLE\nabcd…  BUG:…\n" +
			"… no room\n  for PAGES,\n  STATE; '|\n  cat' at\n  the end of\n  the\n  command\n  shows all\n"},
	} {
		w := &narrowTerminal{columns: tc.columns}
		table := NewTable(w, "ID", "STATE", "PAGES", "TITLE").Spare("PAGES", "STATE")
		table.Row("abcdefgh", "complete", "1000/2000", "BUG: a title of seven words 今日は")
		if err := table.Flush(); err != nil || w.String() != tc.want {
			t.Errorf("%s: got %v\n%s\nwant\n%s", tc.name, err, w.String(), tc.want)
		}
	}
}

func TestTableGoesOn(t *testing.T) {
	w := &narrowTerminal{columns: 30}
	table := NewTable(w)
	table.Row("panic", "Kernel panic - not syncing: of many words")
	table.Row("sha256", strings.Repeat("0123456789abcdef", 4))
	table.Row("empty", "")
	want := "panic   Kernel panic - not\n        syncing: of many words\nsha256  " + strings.Repeat("0123456789abcdef", 4) + "\nempty\n"
	if err := table.Flush(); err != nil || w.String() != want {
		t.Errorf("got %v\n%s\nwant\n%s", err, w.String(), want)
	}
}

func TestFitText(t *testing.T) {
	const text = "Two lines of a paragraph, the\nsecond.\n\nFlags:\n      --data string   where the dumps are kept (default \"/var/lib/corehaul\")\n  --x  short\n"
	for columns, want := range map[int]string{
		0:  text,
		80: text,
		50: "Two lines of a paragraph, the\nsecond.\n\nFlags:\n      --data string   where the dumps are kept\n" + strings.Repeat(" ", 22) + "(default\n" + strings.Repeat(" ", 22) + "\"/var/lib/corehaul\")\n  --x  short\n",
		24: "Two lines of a\nparagraph, the second.\n\nFlags:\n      --data string\n    where the dumps are\n    kept (default\n    \"/var/lib/corehaul\")\n  --x  short\n",
		1:  "Two\nlines\nof\na\nparagraph,\nthe\nsecond.\n\nFlags:\n",
	} {
		if got := fitText(text, columns); got != want && (columns != 1 || !strings.HasPrefix(got, want)) {
			t.Errorf("%d columns: got\n%s\nwant\n%s", columns, got, want)
		}
	}
}

func TestClip(t *testing.T) {
	for _, tc := range []struct {
		in    string
		width int
		want  string
	}{
		{"abc", 0, "abc"},
		{"abc", 3, "abc"},
		{"abcd", 3, "ab…"},
		{"abcd", 1, "…"},
		{"今日は", 6, "今日は"},
		{"今日は", 5, "今日…"},
		{"今日は", 4, "今…"},
		{"e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"},
		{"größe", 4, "grö…"},
	} {
		if got := Clip(tc.in, tc.width); got != tc.want {
			t.Errorf("%q, %d: got %q, want %q", tc.in, tc.width, got, tc.want)
		}
	}
}
