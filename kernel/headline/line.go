package headline

import (
	"strconv"
	"strings"

	"github.com/corehaul/corehaul/internal/lazyregexp"
)

// Line is a line of a log.
type Line struct {
	Text string // the kernel's text, without what was put before it
	Sec  uint64 // time stamp in seconds from some fixed time; 0 without one
	// Caller is the caller id (CONFIG_PRINTK_CALLER): "T12" for the task with PID 12, "C1" for CPU 1 outside of tasks; or "".
	Caller string
	// Program says that a program wrote the line: its level names another facility than the kernel's.
	Program bool
	At      uint64 // offset of the line in the log, if its reader set it
}

// Parse cuts off the end of a line, colours, and what programs put before the kernel's text: levels, time stamps in all
// forms of dmesg, caller ids, the host and tag of syslog, the header of /dev/kmsg and extended netconsole, a prompt on a
// console.
func Parse(line string) Line {
	line = strings.Trim(line, "\r\n\x00")
	if strings.IndexByte(line, '\x1b') >= 0 {
		line = colour.ReplaceAllString(line, "")
	}
	if strings.HasPrefix(line, ">") {
		line = line[len(quoted.FindString(line)):]
	}
	if strings.Contains(line, "&lt;") || strings.Contains(line, "&gt;") {
		line = entities.Replace(line)
	}
	l := Line{Text: line}
	l.level()
	l.daemon()
	l.stamps()
	return l
}

// colour is a sequence of dmesg --color.
var colour = lazyregexp.New("\x1b\\[[0-9;]*m")

// quoted is what mail puts before the lines that it quotes.
var quoted = lazyregexp.New(`^(?:> ?)+`)

// entities are what web pages write for characters of HTML.
var entities = strings.NewReplacer("&lt;", "<", "&gt;", ">", "&amp;", "&")

const digits = "0123456789"

// level cuts off "<4>" of dmesg -r and pstore, "kern  :warn  : " of dmesg -x, and "4,1234,5678,-;" or
// "4,1234,5678,-,caller=T12;" of /dev/kmsg (Documentation/ABI/testing/dev-kmsg). The number is facility * 8 + level,
// and the kernel's facility is 0 (include/linux/kern_levels.h, LOG_FACILITY).
func (l *Line) level() {
	if number, rest, ok := strings.Cut(l.Text, ">"); ok && len(number) <= 4 && strings.HasPrefix(number, "<") && strings.Trim(number[1:], digits) == "" {
		l.Program = len(number) > 2
		l.Text = rest
		return
	}
	if !strings.Contains(l.Text[:min(len(l.Text), 16)], ":") && !strings.Contains(l.Text[:min(len(l.Text), 4)], ",") {
		return // most lines: do without the patterns
	}
	if m := decoded.FindStringSubmatch(l.Text); m != nil {
		l.Program = m[1] != "kern"
		l.Text = l.Text[len(m[0]):]
		return
	}
	if m := extended.FindStringSubmatch(l.Text); m != nil {
		l.Program = len(m[1]) > 1
		usec, _ := strconv.ParseUint(m[2], 10, 64) // 0 if it is too long
		l.Sec, l.Caller = usec/1e6, m[3]
		l.Text = l.Text[len(m[0]):]
	}
}

var (
	decoded  = lazyregexp.New(`^(kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|ftp|local\d|res\d) *:(?:emerg|alert|crit|err|warn|notice|info|debug) *: `)
	extended = lazyregexp.New(`^(\d{1,3}),\d+,(\d+),[-c+](?:,caller=([TC]\d+))?(?:,[a-z]+=[^;]*)*;`)
)

// daemon cuts off what log daemons put before the lines of the kernel: "Nov 30 01:02:03 host kernel: " (RFC 3164,
// journalctl), the same with an ISO 8601 time stamp, or only that (dmesg --time-format iso).
func (l *Line) daemon() {
	if rest, ok := strings.CutPrefix(strings.TrimPrefix(l.Text, " "), "kernel:"); ok { // abrt, terminals
		l.Text = strings.TrimPrefix(rest, " ")
		return
	}
	if strings.HasPrefix(l.Text, "[") || strings.HasPrefix(l.Text, " ") {
		return // most lines: do without the pattern
	}
	m := daemon.FindStringSubmatch(l.Text)
	if m == nil || m[1] == "" && !strings.HasSuffix(m[0], "kernel: ") {
		return
	}
	l.clock(m[0])
	l.Text = l.Text[len(m[0]):]
}

// The host is missing in files of some daemons and with journalctl --no-hostname. The name of the month is that of the
// reader's language. logd of OpenWrt puts the day of the week before it, and facility and level behind it.
var daemon = lazyregexp.New(`^(?:(?:[A-Z][a-z]{2} )?\pL{2,10}\.? [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,9})? (?:\d{4} )?|` +
	`(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d) ))(?:(?:[\w.:-]{1,255} )?(?:kern\.[a-z]{3,6} )?kernel: )?`)

// clock takes the time of the day, and the day before it, as seconds. Only differences count, within one month.
func (l *Line) clock(stamp string) {
	m := dayTime.FindStringSubmatch(stamp)
	if m == nil || l.Sec != 0 {
		return
	}
	for i, factor := range []uint64{86400, 3600, 60, 1} {
		n, _ := strconv.ParseUint(strings.TrimSpace(m[i+1]), 10, 64) // the pattern admits digits only
		l.Sec += n * factor
	}
}

var dayTime = lazyregexp.New(`([ \d]\d)[ T](\d\d):(\d\d):(\d\d)`)

// stamps cuts off time stamp and caller id: "[    1.234567] ", "[    1.234567][   T12] ", "[    1.234567] [   T12] ",
// "[Mon Nov 30 01:02:03 2026] " (dmesg -T), "[Nov30 01:02] ", "[  +0.000012] " (dmesg -e), "[<    0.000012>] " (dmesg -d).
func (l *Line) stamps() {
	rest := strings.TrimPrefix(l.Text, " ")
	if !strings.HasPrefix(rest, "[") {
		rest = afterPrompt(rest)
		rest = rest[len(halfStamp.FindString(rest)):]
	}
	after, stamped := l.bracket(rest, l.stamp)
	if stamped {
		rest = strings.TrimPrefix(after, " ")
	}
	if after, ok := l.bracket(rest, l.caller); ok {
		rest = strings.TrimPrefix(after, " ")
	}
	for _, level := range []string{" EMERG: ", " ALERT: ", " CRIT: "} { // XenServer
		rest = strings.TrimPrefix(rest, level)
	}
	if !stamped {
		rest = outdent(rest)
	}
	l.Text = rest
}

// outdent cuts off what a person put before a headline that he copied. The kernel indents none.
func outdent(s string) string {
	rest := strings.TrimLeft(s, " \t")
	if len(rest) < len(s) && (RankOf(rest) != NoHeadline || strings.HasPrefix(rest, PanicPrefix) || strings.HasPrefix(rest, reportEnd)) {
		return rest
	}
	return s
}

// bracket returns what is behind the brackets at the start of s, if take accepts the text in them.
func (l *Line) bracket(s string, take func(string) bool) (after string, ok bool) {
	if !strings.HasPrefix(s, "[") {
		return "", false
	}
	inner, after, ok := strings.Cut(s[1:], "]")
	if !ok || !take(inner) {
		return "", false
	}
	return after, true
}

// stamp takes a time stamp, and the time since the last line that dmesg may put behind it. Addresses in brackets have no
// dot.
func (l *Line) stamp(s string) bool {
	if strings.HasSuffix(s, ">") {
		m := sinceLast.FindStringIndex(s)
		if m == nil {
			return false
		}
		if s = s[:m[0]]; s == "" {
			return true
		}
	}
	whole, part, ok := strings.Cut(s, ".")
	switch {
	case ok && strings.Trim(whole, digits+" ") == "" && strings.Trim(part, digits) == "":
		if l.Sec == 0 {
			l.Sec, _ = strconv.ParseUint(strings.TrimSpace(whole), 10, 64) // 0 if it is not a number
		}
		return true
	case humanStamp.MatchString(s):
		l.clock(s)
		return true
	}
	return false
}

// caller takes a caller id.
func (l *Line) caller(s string) bool {
	id := strings.TrimLeft(s, " ")
	if len(id) < 2 || id[0] != 'T' && id[0] != 'C' || strings.Trim(id[1:], digits) != "" {
		return false
	}
	l.Caller = id
	return true
}

var humanStamp = lazyregexp.New(`^(?:\pL{2,10}\.? \pL{2,10}\.? [ \d]\d \d\d:\d\d:\d\d \d{4}|[A-Z][a-z]{2}[ \d]\d \d\d:\d\d| *\+\d+\.\d{6})$`)

var sinceLast = lazyregexp.New(` ?<[ +]*\d+\.\d{6}>$`)

// afterPrompt cuts off an unfinished line of a console before a line of the kernel: "debian login: [   12.345678] BUG: ",
// the count of lost messages of kernels before 4.5, one word, such as the name of the host, or words that the kernel
// interrupted. Lines of log daemons are whole: there, such words are those of a program.
func afterPrompt(s string) string {
	if i := strings.IndexByte(s, '['); i < len("# ") || i > maxPrompt {
		return s
	}
	if m := prompt.FindStringSubmatch(s); m != nil {
		return s[len(m[1]):]
	}
	if m := interrupted.FindStringSubmatch(s); m != nil && !daemon.MatchString(s) {
		return s[len(m[1]):]
	}
	return s
}

// interrupted is the start of a line that has no space before the stamp of the kernel.
var interrupted = lazyregexp.New(`^([^\[\]]{1,98}[^\s\[\]:])\[ *\d+\.\d{6}\]`)

// halfStamp is a stamp whose first bracket a console lost.
var halfStamp = lazyregexp.New(`^ *\d{1,10}\.\d{6}\] `)

// maxPrompt is the length of the longest prompt in bytes.
const maxPrompt = 100

var prompt = lazyregexp.New(`^(.{0,80}?(?:login: |[Pp]assword: |[#$] )| *(?:\pL{2,10}\.? [ \d]\d \d\d:\d\d:\d\d )?[\w.-]{1,64} +|\*\* \d+ printk messages dropped \*\* )\[ *\d+\.\d{6}\]`)
