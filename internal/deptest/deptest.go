// Package deptest holds the imports of the tree to the floors of
// docs/architecture.md: its tests ask the go command for whole dependency trees,
// which a linter that sees one file at a time cannot. It has no product code.
package deptest
