// Package deptest checks the imports of the tree against the floors of docs/architecture.md. Its tests ask the go
// command for whole dependency trees: a linter sees one file at a time. It has no product code.
package deptest
