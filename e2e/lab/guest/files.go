package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// fileLen is the size of each file that makes page cache.
const fileLen = 2 << 20

// writeFiles writes size bytes of files into dir: random, text and zero in turn.
func writeFiles(dir string, size int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	buf := make([]byte, fileLen)
	patterns := []func([]byte, uint64){fillRandom, fillText, fillZero}
	for i := range size / fileLen {
		seed := uint64(i) + 1
		patterns[seed%3](buf, seed)
		name := filepath.Join(dir, fmt.Sprintf("file-%05d", i))
		if err := os.WriteFile(name, buf, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// readFiles reads every file in dir, so that it is in the page cache.
func readFiles(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := readStart(filepath.Join(dir, e.Name()), fileLen); err != nil {
			return err
		}
	}
	return nil
}

// readStart reads the first n bytes of a file or device, or all of a shorter one.
func readStart(path string, n int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.CopyN(io.Discard, f, n)
	if err == io.EOF { //nolint:errorlint // CopyN returns it bare
		return nil
	}
	return err
}
