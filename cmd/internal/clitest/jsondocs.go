package clitest

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
)

// JSONDocs says what JSON documents a program prints.
type JSONDocs struct {
	Page     string         // the file that describes them
	Part     string         // the heading of its part about this program
	Commands map[string]any // value of the document for each command path, nil for a line of text
	Objects  map[string]any // value of each object that has a heading of its own in Part, by that heading
}

// Check compares the documents with the page, in both directions. The part has a table of commands and their documents, and for each
// object a heading and a table of its members with type and meaning. A type that ends with "?" may be missing.
func (d *JSONDocs) Check(t *testing.T, root *cobra.Command) {
	t.Helper()
	page, err := os.ReadFile(d.Page)
	if err != nil {
		t.Fatal(err)
	}
	d.compareMembers(t, "Errors", cli.ErrorDocument{}, d.part(t, string(page), "Errors"))
	sections := strings.Split(d.part(t, string(page), d.Part), "\n### ")
	commands := map[string]string{}
	for path, doc := range d.Commands {
		commands[path] = d.word(reflect.TypeOf(doc))
	}
	compare(t, d.Part, commands, rows(t, sections[0]))
	d.checkCommands(t, root)
	described := map[string]bool{}
	for _, s := range sections[1:] {
		name, text, _ := strings.Cut(s, "\n")
		described[name] = true
		object, ok := d.Objects[name]
		if !ok {
			t.Errorf("%s describes %q, which no command prints", d.Page, name)
			continue
		}
		d.compareMembers(t, name, object, text)
	}
	for name := range d.Objects {
		if !described[name] {
			t.Errorf("%s does not describe %q", d.Page, name)
		}
	}
}

// part returns a part of the page.
func (d *JSONDocs) part(t *testing.T, page, heading string) string {
	t.Helper()
	_, part, found := strings.Cut(page, "\n## "+heading+"\n")
	if !found {
		t.Fatalf("%s has no part %q", d.Page, heading)
	}
	part, _, _ = strings.Cut(part, "\n## ")
	return part
}

// compareMembers compares the members of an object with a table.
func (d *JSONDocs) compareMembers(t *testing.T, name string, object any, text string) {
	t.Helper()
	want := map[string]string{}
	d.members(want, reflect.TypeOf(object))
	compare(t, name, want, rows(t, text))
}

// CheckOutput compares what a command printed with the document that Commands has for it: there is no member that the document does not have.
func (d *JSONDocs) CheckOutput(t *testing.T, command, out string) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(out))
	dec.DisallowUnknownFields()
	for dec.More() {
		if err := dec.Decode(reflect.New(reflect.TypeOf(d.Commands[command])).Interface()); err != nil {
			t.Errorf("%s: %v in %s", command, err, out)
			return
		}
	}
}

// checkCommands finds commands that print JSON and have no document.
func (d *JSONDocs) checkCommands(t *testing.T, cmd *cobra.Command) {
	t.Helper()
	if _, ok := d.Commands[cmd.CommandPath()]; ok != (cmd.Flags().Lookup("json") != nil) {
		t.Errorf("%q has a flag --json and no document, or the other way around", cmd.CommandPath())
	}
	for _, sub := range cmd.Commands() {
		d.checkCommands(t, sub)
	}
}

// members adds the members of an object and their types.
func (d *JSONDocs) members(to map[string]string, of reflect.Type) {
	for i := range of.NumField() {
		f := of.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case f.Anonymous && name == "":
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			d.members(to, inner)
		case f.IsExported():
			if name == "" {
				name = f.Name
			}
			word := d.word(f.Type)
			if strings.Contains(options, "omit") || strings.HasSuffix(word, "?") {
				word = strings.TrimSuffix(word, "?") + "?"
			}
			to[name] = word
		}
	}
}

// word is what the page calls a type.
func (d *JSONDocs) word(of reflect.Type) string {
	if of.Kind() == reflect.Pointer {
		return d.word(of.Elem())
	}
	switch {
	case of == reflect.TypeFor[time.Time]():
		return "time"
	case of.Implements(reflect.TypeFor[encoding.TextMarshaler]()), of.Kind() == reflect.String:
		return "text"
	}
	switch of.Kind() {
	case reflect.Slice, reflect.Array:
		return "array of " + d.word(of.Elem())
	case reflect.Map:
		return "map to " + d.word(of.Elem())
	case reflect.Bool:
		return "boolean"
	case reflect.Struct:
		return d.link(of)
	}
	return "number"
}

// link is the link to the heading of an object.
func (d *JSONDocs) link(of reflect.Type) string {
	for name, object := range d.Objects {
		if reflect.TypeOf(object) == of {
			return fmt.Sprintf("[%s](#%s)", name, strings.ReplaceAll(name, " ", "-"))
		}
	}
	return "an object without a name: " + of.String()
}

// rows returns the second cell for the first one of each row of a table. It wants a meaning in the third one, if the table has three.
func rows(t *testing.T, text string) map[string]string {
	t.Helper()
	got := map[string]string{}
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		name := strings.TrimSpace(cells[0])
		if !strings.HasPrefix(name, "`") || len(cells) < 2 {
			continue
		}
		for _, cell := range cells {
			if strings.TrimSpace(cell) == "" {
				t.Errorf("a cell is empty: %s", line)
			}
		}
		got[strings.Trim(name, "`")] = strings.TrimSpace(cells[1])
	}
	return got
}

// compare compares what there is with what the page says.
func compare(t *testing.T, of string, is, said map[string]string) {
	t.Helper()
	names := maps.Clone(is)
	maps.Copy(names, said)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		switch want, got := is[name], said[name]; {
		case got == "":
			t.Errorf("%s: `%s` (%s) is not described", of, name, want)
		case want == "":
			t.Errorf("%s: `%s` (%s) does not exist", of, name, got)
		case want != got:
			t.Errorf("%s: `%s` is %s, not %s", of, name, want, got)
		}
	}
}
