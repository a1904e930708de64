// Package doctest holds the documents to their form: its tests check that they stay readable
// and that what they point to exists. It has no product code.
package doctest
