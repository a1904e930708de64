// Package doctest checks the form of the documents: its tests check that they are readable and that the files and
// headings that they name exist. It has no product code.
package doctest
