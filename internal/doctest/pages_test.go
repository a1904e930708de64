package doctest

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// maxLine is the longest line of a page outside of tables and code.
const maxLine = 599

// pages lists the documents of the tree.
func pages(t *testing.T) []string {
	t.Helper()
	var list []string
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && name != ".":
			return fs.SkipDir
		case path.Ext(name) == ".md":
			list = append(list, name)
		}
		return nil
	})
	if err != nil || len(list) < 10 {
		t.Fatalf("found only the pages %v: %v", list, err)
	}
	return list
}

func TestLinesAreShort(t *testing.T) {
	for _, page := range pages(t) {
		for _, b := range readPage(t, page) {
			if b.kind == table || b.kind == code {
				continue
			}
			for i, line := range b.lines {
				if n := utf8.RuneCountInString(line); n > maxLine {
					t.Errorf("%s:%d has %d characters, more than %d", page, b.line+i, n, maxLine)
				}
			}
		}
	}
}

var (
	link = regexp.MustCompile(`\]\(([^)]+)\)`)
	// goFile is the name of a Go file in backquotes, with its directory.
	goFile = regexp.MustCompile("`([a-z0-9_/]+/[a-z0-9_]+\\.go)`")
)

func TestLinksLeadSomewhere(t *testing.T) {
	found := 0
	for _, page := range pages(t) {
		for _, b := range readPage(t, page) {
			if b.kind == code {
				continue
			}
			for _, m := range link.FindAllStringSubmatch(b.text(), -1) {
				if strings.Contains(m[1], "://") {
					continue
				}
				found++
				checkLink(t, page, m[1])
			}
			for _, m := range goFile.FindAllStringSubmatch(b.text(), -1) {
				found++
				if !exists(m[1]) {
					t.Errorf("%s:%d names %s, which does not exist", page, b.line, m[1])
				}
			}
		}
	}
	if found < 100 {
		t.Errorf("found only %d links and names of files", found)
	}
}

// checkLink checks a link of a page to another page or heading.
func checkLink(t *testing.T, page, target string) {
	t.Helper()
	file, anchor, _ := strings.Cut(target, "#")
	if file == "" {
		file = page
	} else {
		file = path.Join(path.Dir(page), file)
	}
	if !exists(file) {
		t.Errorf("%s links to %s, which does not exist", page, target)
		return
	}
	if anchor != "" && !anchors(t, file)[anchor] {
		t.Errorf("%s links to %s, which has no such heading", page, target)
	}
}

func exists(file string) bool {
	_, err := os.Stat(filepath.Join(root, file))
	return err == nil
}

// anchors are the names under which the headings of a page can be linked.
func anchors(t *testing.T, page string) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, b := range readPage(t, page) {
		if b.kind == heading {
			names[anchorOf(b.text())] = true
		}
	}
	return names
}

var dropped = regexp.MustCompile(`[^\p{L}\p{N} _-]`)

func anchorOf(heading string) string {
	text := strings.ToLower(strings.TrimSpace(strings.TrimLeft(heading, "#")))
	return strings.ReplaceAll(dropped.ReplaceAllString(text, ""), " ", "-")
}
