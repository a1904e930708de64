package doctest

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	architecture = "docs/architecture.md"

	maxWords            = 80  // of a paragraph
	maxArchitectureLine = 200 // characters, tables included
	questions           = 50
)

func TestArchitectureIsReadable(t *testing.T) {
	for _, b := range readPage(t, architecture) {
		for i, line := range b.lines {
			if n := utf8.RuneCountInString(line); n > maxArchitectureLine {
				t.Errorf("%s:%d has %d characters, more than %d", architecture, b.line+i, n, maxArchitectureLine)
			}
		}
		if n := len(strings.Fields(b.text())); b.kind == paragraph && n > maxWords {
			t.Errorf("%s:%d: a paragraph of %d words, more than %d", architecture, b.line, n, maxWords)
		}
	}
}

// Every decision has a heading of its own, and says what the problem was, what was chosen and what that costs.
func TestDecisionsAreComplete(t *testing.T) {
	decisions := 0
	var within, missing []string
	name := ""
	end := func() {
		if len(missing) > 0 {
			t.Errorf("%s: %q does not say, in this order: %v", architecture, name, missing)
		}
		missing = nil
	}
	for _, b := range readPage(t, architecture) {
		switch text := b.text(); {
		case strings.HasPrefix(text, "## "):
			end()
			within, name = nil, ""
			if strings.HasPrefix(text, "## Decisions") {
				within = []string{"**Problem.**", "**Choice.**", "**Cost.**"}
			}
		case within == nil:
		case strings.HasPrefix(text, "### "):
			end()
			decisions++
			name, missing = text, slices.Clone(within)
		case name == "":
			t.Errorf("%s:%d: text of no decision", architecture, b.line)
		case len(missing) > 0 && strings.HasPrefix(text, missing[0]):
			missing = missing[1:]
		}
	}
	end()
	if decisions < 15 {
		t.Errorf("%s has %d decisions", architecture, decisions)
	}
}

// The table of the floors names every package of the product and no other: those for tests end in "test" or lie in e2e.
func TestFloorsNameEveryPackage(t *testing.T) {
	blocks := readPage(t, architecture)
	at := slices.IndexFunc(blocks, func(b block) bool { return strings.HasPrefix(b.text(), "| floor |") })
	if at < 0 {
		t.Fatalf("%s has no table of floors", architecture)
	}
	rows, named := map[string]bool{}, map[string]bool{}
	for _, row := range blocks[at].lines {
		cells := strings.Split(row, " | ")
		for _, m := range quoted.FindAllStringSubmatch(cells[1], -1) {
			if rows[m[1]] {
				t.Errorf("%s: the floors have %s twice", architecture, m[1])
			}
			rows[m[1]], named[m[1]] = true, true
		}
		for _, m := range quoted.FindAllStringSubmatch(strings.Join(cells[2:], " "), -1) {
			named[m[1]] = true
		}
	}
	for dir := range packages(t) {
		if !named[dir] {
			t.Errorf("%s: the floors lack %s", architecture, dir)
		}
	}
	for name := range named {
		if strings.Contains(name, "/") && !exists(name) {
			t.Errorf("%s: the floors have %s, which does not exist", architecture, name)
		}
	}
}

var quoted = regexp.MustCompile("`([a-z0-9_/-]+)`")

// packages are the directories of the product's packages.
func packages(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		switch base := d.Name(); {
		case err != nil:
			return err
		case d.IsDir() && (base == "e2e" || base == "tools" || base == "testdata" || strings.HasSuffix(base, "test") ||
			strings.HasPrefix(base, ".") && name != "."):
			return fs.SkipDir
		case strings.HasSuffix(base, ".go") && !strings.HasSuffix(base, "_test.go"):
			found[path.Dir(name)] = true
		}
		return nil
	})
	if err != nil || len(found) < 30 {
		t.Fatalf("found only %d packages: %v", len(found), err)
	}
	return found
}

var answer = regexp.MustCompile("^\\| (.+\\?) \\| `([^`]+)` \\|$")

// The last part of the page asks where things are. Each answer is one file, which the page names nowhere else.
func TestQuestionsHaveOneFile(t *testing.T) {
	blocks := readPage(t, architecture)
	at := slices.IndexFunc(blocks, func(b block) bool { return b.text() == "## Where is X?" })
	if at < 0 || blocks[len(blocks)-1].kind != table {
		t.Fatalf("%s does not end with the questions", architecture)
	}
	asked := map[string]bool{}
	named := goFiles(blocks)
	for i, row := range blocks[len(blocks)-1].lines[2:] {
		m := answer.FindStringSubmatch(row)
		if m == nil {
			t.Errorf("question %d is not of the form | question? | `file` |: %s", i+1, row)
			continue
		}
		asked[m[1]] = true
		if !exists(m[2]) {
			t.Errorf("%q is answered by %s, which does not exist", m[1], m[2])
		}
		if named[m[2]] != 1 {
			t.Errorf("%s names %s %d times, want once", architecture, m[2], named[m[2]])
		}
	}
	if len(asked) != questions {
		t.Errorf("%s has %d different questions, want %d", architecture, len(asked), questions)
	}
}

// goFiles counts how often each Go file is named.
func goFiles(blocks []block) map[string]int {
	named := map[string]int{}
	for _, b := range blocks {
		for _, m := range goFile.FindAllStringSubmatch(b.text(), -1) {
			named[m[1]]++
		}
	}
	return named
}
