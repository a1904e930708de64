package dumpdir

import (
	"encoding/hex"
	"path"
	"strings"
)

// Sums is a SHA256SUMS file, as sha256sum of coreutils writes it and accepts it with -c. A line has 64 hexadecimal
// digits, a space, a space or an asterisk (for "binary", without effect), and the name; or "SHA256 (name) = digits".
// A line that begins with a backslash has a name with escapes. Lines may end with CRLF. Lines that begin with # are
// comments.
type Sums struct {
	sums map[string]string // digits in lower case by name
	// Malformed counts other lines, and names with two different sums.
	Malformed int
}

// ParseSums reads a SHA256SUMS file.
func ParseSums(text string) *Sums { return parseSums(text, "SHA256", sumDigits) }

// ParseMD5Sums reads the same from md5sum, with 32 digits.
func ParseMD5Sums(text string) *Sums { return parseSums(text, "MD5", md5Digits) }

// parseSums reads the sums of a program whose tag is before the name in one of its formats.
func parseSums(text, tag string, digits int) *Sums {
	s := &Sums{sums: make(map[string]string)}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if line == "" || line[0] == '#' {
			continue
		}
		sum, name, ok := parseSumLine(line, tag, digits)
		if have, twice := s.sums[name]; !ok || twice && have != sum {
			s.Malformed++
			continue
		}
		s.sums[name] = sum
	}
	return s
}

// Of returns the sum of a name, in lower-case hexadecimal digits.
func (s *Sums) Of(name string) (sum string, ok bool) {
	sum, ok = s.sums[name]
	return sum, ok
}

// Digits of a sum.
const (
	sumDigits = 64
	md5Digits = 32
)

func parseSumLine(line, tag string, digits int) (sum, name string, ok bool) {
	line, escaped := strings.CutPrefix(line, `\`)
	if tagged, is := strings.CutPrefix(line, tag+" ("); is {
		at := strings.LastIndex(tagged, ") = ")
		if at < 0 {
			return "", "", false
		}
		name, sum = tagged[:at], tagged[at+len(") = "):]
	} else {
		if len(line) < digits+3 || line[digits] != ' ' || line[digits+1] != ' ' && line[digits+1] != '*' {
			return "", "", false
		}
		sum, name = line[:digits], line[digits+2:]
	}
	if b, err := hex.DecodeString(sum); err != nil || len(b) != digits/2 {
		return "", "", false
	}
	if escaped {
		name, ok = unescape(name)
	}
	return strings.ToLower(sum), path.Clean(name), name != "" && ok == escaped
}

// unescape undoes sha256sum's escapes of backslash and line end in a name.
func unescape(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		if i++; i == len(s) {
			return "", false
		}
		switch s[i] {
		case '\\':
			b.WriteByte('\\')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		default:
			return "", false
		}
	}
	return b.String(), true
}

const maxSumsLen = 64 << 10

// sums returns the contents of SHA256SUMS. It hashes manifest and journal as they are.
func (c *core) sums() (string, error) {
	var b strings.Builder
	for _, name := range []string{JournalName, ManifestName} {
		_, sum, err := hashFile(c.fs, c.path(name), nil)
		if err != nil {
			return "", err
		}
		b.WriteString(sumLine(sum, name))
	}
	if c.plan != nil {
		b.WriteString(sumLine(c.seal.sum, VMCoreName))
	}
	if c.log != nil {
		b.WriteString(sumLine(c.log.sum, LogName))
	}
	kept, err := readKept(c.fs, c.dir)
	if err != nil {
		return "", err
	}
	for _, f := range kept {
		b.WriteString(f.sumLine())
	}
	return b.String(), nil
}

func (c *core) writeSums() error {
	sums, err := c.sums()
	if err != nil {
		return err
	}
	return SaveFile(c.fs, c.dir, SumsName, []byte(sums))
}

// sumLine is a line of SHA256SUMS.
func sumLine(sum [32]byte, name string) string {
	return hex.EncodeToString(sum[:]) + "  " + name + "\n"
}

// sumVouches reports whether sums has the present SHA-256 of a file.
func sumVouches(fsys FS, dir, sums, name string) (bool, error) {
	want, ok := ParseSums(sums).Of(name)
	if !ok {
		return false, nil
	}
	_, sum, err := hashFile(fsys, path.Join(dir, name), nil)
	return err == nil && hex.EncodeToString(sum[:]) == want, ignoreNotExist(err)
}
