package dumpdir_test

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/dumpdir"
)

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func TestParseSums(t *testing.T) {
	sum := hexSum([]byte("x"))
	for name, tc := range map[string]struct {
		text      string
		file      string
		ok        bool
		malformed int
	}{
		"text":             {sum + "  vmcore\n", "vmcore", true, 0},
		"binary":           {sum + " *vmcore\n", "vmcore", true, 0},
		"no end of line":   {sum + "  vmcore", "vmcore", true, 0},
		"DOS":              {sum + " *vmcore\r\n" + sum + "  b\r\n", "vmcore", true, 0},
		"upper case":       {strings.ToUpper(sum) + "  vmcore\n", "vmcore", true, 0},
		"with directory":   {sum + "  ./vmcore\n", "vmcore", true, 0},
		"tagged":           {"SHA256 (vmcore) = " + sum + "\n", "vmcore", true, 0},
		"spaces in name":   {sum + "  my core (1) = 2\n", "my core (1) = 2", true, 0},
		"escaped":          {`\` + sum + `  a\nb\\c` + "\n", "a\nb\\c", true, 0},
		"bad escape":       {`\` + sum + `  a\x` + "\n", `a\x`, false, 1},
		"backslash alone":  {sum + `  a\nb` + "\n", `a\nb`, true, 0},
		"comment":          {"# nothing\n\n" + sum + "  vmcore\n", "vmcore", true, 0},
		"other file":       {sum + "  core\n", "vmcore", false, 0},
		"one digit less":   {sum[1:] + "  vmcore\n", "vmcore", false, 1},
		"one digit more":   {sum + "a  vmcore\n", "vmcore", false, 1},
		"no digit":         {"g" + sum[1:] + "  vmcore\n", "vmcore", false, 1},
		"one space":        {sum + " vmcore\n", "vmcore", false, 1},
		"no name":          {sum + "  \n", "", false, 1},
		"two sums":         {sum + "  vmcore\n" + hexSum(nil) + "  vmcore\n", "vmcore", true, 1},
		"bytes of nothing": {"\x00\x01\xff\n", "vmcore", false, 1},
	} {
		s := dumpdir.ParseSums(tc.text)
		got, ok := s.Of(tc.file)
		if ok != tc.ok || ok && got != sum || s.Malformed != tc.malformed {
			t.Errorf("%s: %q, %v, %d malformed", name, got, ok, s.Malformed)
		}
	}
}
