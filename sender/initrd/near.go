package initrd

import (
	"sort"
	"strings"
)

// near returns up to five known names that are similar to name.
func (t *Tree) near(name string) []string {
	type hit struct {
		name string
		dist int
	}
	var hits []hit
	limit := max(2, len(name)/3)
	for k := range t.modules {
		switch d := editDistance(name, k); {
		case d <= limit:
			hits = append(hits, hit{k, d})
		case len(name) >= 4 && strings.Contains(k, name):
			hits = append(hits, hit{k, limit + 1})
		}
	}
	sort.Slice(hits, func(i, j int) bool {
		if hits[i].dist != hits[j].dist {
			return hits[i].dist < hits[j].dist
		}
		return hits[i].name < hits[j].name
	})
	var names []string
	for _, h := range hits[:min(5, len(hits))] {
		names = append(names, h.name)
	}
	return names
}

// editDistance is the Levenshtein distance in bytes. Module names are ASCII.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
