// Package plaintoml says in words for people what is wrong with a value of a configuration file. The errors of the TOML library
// name types and struct fields of Go. The library documents no form of these errors, so a text that is not recognised stays as it is;
// a test holds that those of the present version are recognised.
package plaintoml

import (
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Text returns what is wrong with the key of err, without its place.
func Text(err *toml.DecodeError) string {
	text := strings.TrimPrefix(err.Error(), "toml: ")
	if strings.HasPrefix(text, "cannot store a table in a ") {
		return "this is a table, and it must not be one"
	}
	rest, ok := strings.CutPrefix(text, "cannot decode TOML ")
	kind, into, is := strings.Cut(rest, " into ")
	if !ok || !is {
		return text
	}
	if _, kind, named := strings.Cut(into, " of type "); named { // behind the name of a struct field
		into = kind
	}
	return "this is " + kindText(kind) + "; it must be " + typeText(into)
}

// kindText describes what the file has, by the name that the library has for it.
func kindText(kind string) string {
	switch kind {
	case "string":
		return "a text"
	case "integer", "float":
		return "a number"
	case "boolean":
		return "true or false"
	case "array":
		return "a list"
	case "table", "inline table":
		return "a table"
	}
	return "a " + kind
}

// typeText describes what a key takes, by its type in Go.
func typeText(kind string) string {
	switch kind = strings.TrimPrefix(kind, "*"); {
	case kind == "string":
		return "a text in quotes"
	case kind == "bool":
		return "true or false, without quotes"
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "a whole number, without quotes"
	case strings.HasPrefix(kind, "[]"):
		return `a list, such as ["one", "two"]`
	case strings.HasPrefix(kind, "struct"):
		return "a table"
	}
	return "of another kind" // a type of ours
}
