package main

import (
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// keyLines returns the lines of the keys of a TOML text, as far as it can be read: "tls", "retention", "retention.max_age". The key of
// the second [[rule]] is "rule 2", those in it are "rule 2.then".
func keyLines(text []byte) map[string]int {
	lines := map[string]int{}
	var p unstable.Parser
	p.Reset(text)
	table, count := "", map[string]int{}
	for p.NextExpression() {
		e := p.Expression()
		var parts []string
		line := 0
		for it := e.Key(); it.Next(); {
			n := it.Node()
			if line == 0 {
				line = p.Shape(n.Raw).Start.Line
			}
			parts = append(parts, string(n.Data))
		}
		key := strings.Join(parts, ".")
		switch e.Kind {
		case unstable.ArrayTable:
			count[key]++
			key = fmt.Sprintf("%s %d", key, count[key])
			table = key + "."
		case unstable.Table:
			table = key + "."
		default:
			key = table + key
		}
		lines[key] = line
	}
	return lines
}
