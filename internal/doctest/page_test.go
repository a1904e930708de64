package doctest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// root is the top of the tree.
const root = "../.."

// kind says what a block of a page is.
type kind int

const (
	paragraph kind = iota // running text, or one item of a list
	heading
	table
	code // with its fences
)

// A block is a part of a Markdown page.
type block struct {
	kind  kind
	line  int // number of the first line, from 1
	lines []string
}

// text joins the lines of a block.
func (b block) text() string { return strings.Join(b.lines, "\n") }

// readPage cuts a page into blocks; blank lines are in none.
func readPage(t *testing.T, page string) []block {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	return blocksOf(string(data))
}

func blocksOf(page string) []block {
	var list []block
	fenced, blank := false, true
	for i, line := range strings.Split(page, "\n") {
		k, fence := kindOf(line), strings.HasPrefix(strings.TrimSpace(line), "```")
		if fenced || fence {
			k = code
		}
		switch last := len(list) - 1; {
		case !fenced && strings.TrimSpace(line) == "":
			blank = true
			continue
		case fenced, !blank && !fence && k == list[last].kind && k != heading && !isItem(line):
			list[last].lines = append(list[last].lines, line)
		default:
			list = append(list, block{kind: k, line: i + 1, lines: []string{line}})
		}
		fenced, blank = fenced != fence, false
	}
	return list
}

func kindOf(line string) kind {
	switch {
	case strings.HasPrefix(line, "#"):
		return heading
	case strings.HasPrefix(line, "|"):
		return table
	}
	return paragraph
}

// isItem reports whether a line begins an item of a list.
func isItem(line string) bool {
	line = strings.TrimSpace(line)
	number, _, found := strings.Cut(line, ". ")
	return strings.HasPrefix(line, "- ") || found && number != "" && strings.Trim(number, "0123456789") == ""
}

func TestBlocksOf(t *testing.T) {
	list := blocksOf("# A\none\ntwo\n- item\n  more\n2. item\n\n| a |\n| b |\n```sh x\n# code\n\n| code |\n```\nend\n")
	want := []block{
		{heading, 1, []string{"# A"}},
		{paragraph, 2, []string{"one", "two"}},
		{paragraph, 4, []string{"- item", "  more"}},
		{paragraph, 6, []string{"2. item"}},
		{table, 8, []string{"| a |", "| b |"}},
		{code, 10, []string{"```sh x", "# code", "", "| code |", "```"}},
		{paragraph, 15, []string{"end"}},
	}
	if len(list) != len(want) {
		t.Fatalf("%d blocks, want %d: %v", len(list), len(want), list)
	}
	for i, b := range list {
		if b.kind != want[i].kind || b.line != want[i].line || b.text() != want[i].text() {
			t.Errorf("block %d is %v, want %v", i, b, want[i])
		}
	}
}
