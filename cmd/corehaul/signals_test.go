package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestUnitStartsServeAgain reads the unit: whatever ended the server, it comes back, and systemd does not give up.
func TestUnitStartsServeAgain(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "contrib", "corehaul.service"))
	if err != nil {
		t.Fatal(err)
	}
	unit, service, _ := bytes.Cut(text, []byte("[Service]"))
	for want, in := range map[string][]byte{"\nRestart=always\n": service, "\nStartLimitIntervalSec=0\n": unit} {
		if !bytes.Contains(in, []byte(want)) {
			t.Errorf("the unit lacks %q where systemd looks for it", want)
		}
	}
}
