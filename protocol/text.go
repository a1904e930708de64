package protocol

import (
	"strings"

	"github.com/corehaul/corehaul/internal/printable"
)

// Limits of texts, in bytes of UTF-8.
const (
	maxText     = 1024 // texts for people
	maxName     = 64   // names: tools, machines, features, tiers
	maxHostName = 253  // DNS; names of hosts are shorter, see package hostname
	maxBuildID  = 128  // hex digits; the kernel takes notes of up to BUILD_ID_SIZE_MAX (20), gold writes more
	maxList     = 64   // elements of a list of texts
	maxPath     = 4096 // kernel: PATH_MAX
)

// CleanText makes s fit for a console and for a text field of the protocol. It replaces by '?' what is not UTF-8 or
// not printable (control characters, line ends, bidirectional controls), and cuts at limit bytes.
func CleanText(s string, limit int) string { return printable.Clean(s, limit) }

// checker checks the fields of a control message and keeps the first error.
type checker struct {
	what Type
	err  error
}

func (c *checker) fail(code Code, format string, args ...any) {
	if c.err == nil {
		c.err = Errorf(code, "%s: "+format, append([]any{c.what}, args...)...)
	}
}

// text checks a text for people. It may be empty.
func (c *checker) text(name, s string, limit int) {
	switch {
	case len(s) > limit:
		c.fail(CodeTooLarge, "%s of %d bytes above %d", name, len(s), limit)
	case !printable.String(s):
		c.fail(CodeBadMessage, "%s is not printable text", name)
	}
}

// need checks a text that must not be empty.
func (c *checker) need(name, s string, limit int) {
	if s == "" {
		c.fail(CodeBadMessage, "%s is missing", name)
	}
	c.text(name, s, limit)
}

func (c *checker) texts(name string, list []string, limit int) {
	if len(list) > maxList {
		c.fail(CodeTooLarge, "%d %s above %d", len(list), name, maxList)
		return
	}
	for _, s := range list {
		c.need(name, s, limit)
	}
}

// hex checks a string of exactly n lower-case hex digits, or, if n < 0, of an even number of digits up to -n, which
// may be 0.
func (c *checker) hex(name, s string, n int) {
	bad := strings.Trim(s, "0123456789abcdef") != ""
	if n < 0 {
		bad = bad || len(s) > -n || len(s)%2 != 0
	} else {
		bad = bad || len(s) != n
	}
	if bad {
		c.fail(CodeBadMessage, "%s is not lower-case hex of the right length", name)
	}
}

func (c *checker) atMost(name string, v, limit uint64) {
	if v > limit {
		c.fail(CodeTooLarge, "%s %d above %d", name, v, limit)
	}
}

func (c *checker) that(ok bool, format string, args ...any) {
	if !ok {
		c.fail(CodeBadMessage, format, args...)
	}
}

// cleanAll bounds a list of texts to the limits of a message.
func cleanAll(list []string) []string {
	var clean []string
	for _, s := range list {
		if s = CleanText(s, maxText); s != "" && len(clean) < maxList {
			clean = append(clean, s)
		}
	}
	return clean
}
