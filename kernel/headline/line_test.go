package headline_test

import (
	"testing"

	"github.com/corehaul/corehaul/kernel/headline"
)

func TestParse(t *testing.T) {
	const text = "BUG: it"
	sec := func(day, h, m, s uint64) uint64 { return ((day*24+h)*60+m)*60 + s }
	for _, tc := range []struct {
		name, line string
		want       headline.Line
	}{
		{"none", "BUG: it", headline.Line{Text: text}},
		{"carriage return", "BUG: it\r\n", headline.Line{Text: text}},
		{"console", "[   12.345678] BUG: it", headline.Line{Text: text, Sec: 12}},
		{"a frame keeps its space", "[   12.345678]  foo+0x1/0x2", headline.Line{Text: " foo+0x1/0x2", Sec: 12}},
		{"task", "[   12.345678][   T12] BUG: it", headline.Line{Text: text, Sec: 12, Caller: "T12"}},
		{"CPU, apart", "[   12.345678] [    C1] BUG: it", headline.Line{Text: text, Sec: 12, Caller: "C1"}},
		{"caller without time", "[   T12] BUG: it", headline.Line{Text: text, Caller: "T12"}},
		{"level", "<4>[   12.345678] BUG: it", headline.Line{Text: text, Sec: 12}},
		{"level of a program", "<12>[   12.345678] BUG: it", headline.Line{Text: text, Sec: 12, Program: true}},
		{"decoded level", "kern  :warn  : [   12.345678] BUG: it", headline.Line{Text: text, Sec: 12}},
		{"decoded level of a program", "daemon:info  : [   12.345678] BUG: it", headline.Line{Text: text, Sec: 12, Program: true}},
		{"/dev/kmsg", "4,1234,12345678,-;BUG: it", headline.Line{Text: text, Sec: 12}},
		{"/dev/kmsg with caller", "4,1234,12345678,-,caller=T12;BUG: it", headline.Line{Text: text, Sec: 12, Caller: "T12"}},
		{"/dev/kmsg of a program", "12,1234,12345678,-;BUG: it", headline.Line{Text: text, Sec: 12, Program: true}},
		{"syslog", "Nov 30 01:02:03 host kernel: [   12.345678] BUG: it", headline.Line{Text: text, Sec: sec(30, 1, 2, 3)}},
		{"journalctl", "Nov  3 01:02:03 host kernel: BUG: it", headline.Line{Text: text, Sec: sec(3, 1, 2, 3)}},
		{"journalctl without host", "Nov 30 01:02:03 kernel: BUG: it", headline.Line{Text: text, Sec: sec(30, 1, 2, 3)}},
		{"a program's line of syslog", "Nov 30 01:02:03 host evil[12]: BUG: it", headline.Line{Text: "Nov 30 01:02:03 host evil[12]: BUG: it"}},
		{"rsyslog", "2026-11-30T01:02:03.123456+00:00 host kernel: [   12.345678] BUG: it", headline.Line{Text: text, Sec: sec(30, 1, 2, 3)}},
		{"dmesg iso", "2026-11-30T01:02:03,123456+00:00 BUG: it", headline.Line{Text: text, Sec: sec(30, 1, 2, 3)}},
		{"dmesg -T", "[Mon Nov 30 01:02:03 2026] BUG: it", headline.Line{Text: text, Sec: sec(30, 1, 2, 3)}},
		{"dmesg -e, first", "[Nov30 01:02] BUG: it", headline.Line{Text: text}},
		{"dmesg -e", "[  +0.000012] BUG: it", headline.Line{Text: text}},
		{"dmesg -d", "[   12.345678 <    0.000012>] BUG: it", headline.Line{Text: text, Sec: 12}},
		{"dmesg -d without time", "[<    0.000012>] BUG: it", headline.Line{Text: text}},
		{"dmesg --color", "\x1b[32m[   12.345678] \x1b[0m\x1b[31mBUG: it\x1b[0m", headline.Line{Text: text, Sec: 12}},
		{"prompt of getty", "debian login: [   12.345678] BUG: it", headline.Line{Text: text, Sec: 12}},
		{"prompt of a shell", "root@host:~# [   12.345678] BUG: it", headline.Line{Text: text, Sec: 12}},
		{"abrt", "kernel: BUG: it", headline.Line{Text: text}},
		{"journalctl in Russian", "июл 27 01:02:03 host kernel: BUG: it", headline.Line{Text: text, Sec: sec(27, 1, 2, 3)}},
		{"journalctl in German", "Mär 27 01:02:03 host kernel: BUG: it", headline.Line{Text: text, Sec: sec(27, 1, 2, 3)}},
		{"journalctl -o short-precise", "Nov 30 01:02:03.123456 host kernel: BUG: it", headline.Line{Text: text, Sec: sec(30, 1, 2, 3)}},
		{"logread", "Mon Nov 30 01:02:03 2026 kern.alert kernel: [   12.345678] BUG: it", headline.Line{Text: text, Sec: sec(30, 1, 2, 3)}},
		{"a program's line of logread", "Mon Nov 30 01:02:03 2026 daemon.err a: BUG: it", headline.Line{Text: "Mon Nov 30 01:02:03 2026 daemon.err a: BUG: it"}},
		{"dmesg -T in German", "[Mo Nov 30 01:02:03 2026] BUG: it", headline.Line{Text: text, Sec: sec(30, 1, 2, 3)}},
		{"netconsole of a host", "Nov 30 01:02:03 10.0.0.5 [   12.345678] BUG: it", headline.Line{Text: text, Sec: 12}},
		{"number of a line", "  1174 [   12.345678] BUG: it", headline.Line{Text: text, Sec: 12}},
		{"XenServer", "[   12.345678]  EMERG: BUG: it", headline.Line{Text: text, Sec: 12}},
		{"mail", ">> > [   12.345678] BUG: it", headline.Line{Text: text, Sec: 12}},
		{"web page", "&lt;4&gt;[   12.345678]  &lt;TASK&gt; &amp;lock", headline.Line{Text: " <TASK> &lock", Sec: 12}},
		{"memory that was not written", "\x00\x00[   12.345678] BUG: it", headline.Line{Text: text, Sec: 12}},
		{"words that were interrupted", "INIT: PANIC: it. sleeping for 30 s[   12.345678] BUG: it", headline.Line{Text: text, Sec: 12}},
		{"a daemon's words are whole", "Nov 30 01:02:03 host evil: 30 s[   12.345678] BUG: it", headline.Line{Text: "Nov 30 01:02:03 host evil: 30 s[   12.345678] BUG: it"}},
		{"a program's tag", "evil[12]:[   12.345678] BUG: it", headline.Line{Text: "evil[12]:[   12.345678] BUG: it"}},
		{"a bracket that was lost", "   12.345678] BUG: it", headline.Line{Text: text}},
		{"a terminal", " kernel:BUG: it", headline.Line{Text: text}},
		{"a terminal, with time", " kernel:[   12.345678] BUG: it", headline.Line{Text: text, Sec: 12}},
		{"a person's indent", "    BUG: it", headline.Line{Text: text}},
		{"lost messages", "** 12 printk messages dropped ** [   12.345678] BUG: it", headline.Line{Text: text, Sec: 12}},
		{"a quotation is no prompt", "he said [   12.345678] BUG: it", headline.Line{Text: "he said [   12.345678] BUG: it"}},
		{"address of x86", "[   12.345678] [<ffffffff81234567>] foo+0x1/0x2", headline.Line{Text: "[<ffffffff81234567>] foo+0x1/0x2", Sec: 12}},
		{"address of sparc", "[0000000000456789] foo+0x1/0x2", headline.Line{Text: "[0000000000456789] foo+0x1/0x2"}},
		{"huge time", "[99999999999999999999.0] BUG: it", headline.Line{Text: text, Sec: 1<<64 - 1}},
	} {
		if got := headline.Parse(tc.line); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

func TestRankOf(t *testing.T) {
	for _, tc := range []struct {
		text string
		want headline.Rank
	}{
		{"int3: 0000 [#1] SMP", headline.Trap},
		{"int3472-discrete INT3472:00: GPIO type 0x02 unknown", headline.NoHeadline},
		{"watchdog: CPU 4 self-detected hard LOCKUP @ foo+0x1/0x2", headline.Complaint},
		{"watchdog: CPU 4 became unstuck TB:123", headline.NoHeadline},
		{"watchdog: CPU1: Watchdog detected hard LOCKUP on cpu 1", headline.Complaint},
		{"BUG: scheduling while atomic: a/1/0x2", headline.Complaint},
		{"WARNING: possible recursive locking detected", headline.Complaint},
		{"WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2", headline.Complaint},
		{"WARNING: The mand mount option has been deprecated and", headline.NoHeadline},
		{"WARNING: can't access registers at foo+0x1/0x2", headline.NoHeadline},
		{"WARNING: apt does not have a stable CLI interface", headline.NoHeadline},
		{"WARNING: at a.c:1 f+0x1/0x2()", headline.Complaint},
		{"WARNING: a.c:1 at f+0x1/0x2, CPU#0: a/1", headline.Complaint},
		{"WARNING: [text] a.c:1 at f+0x1/0x2, CPU#0: a/1", headline.Complaint},
		{"WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected", headline.Complaint},
		{"WARNING: a/1 still has locks held!", headline.Complaint},
		{"Oops: 0000 [#1] SMP", headline.Trap},
		{"Oops[#1]:", headline.Trap},
		{"Oops - load access fault [#1]", headline.Trap},
		{"Oops [#1]", headline.Trap},
		{"Oops: Kernel access of bad area, sig: 11 [#1]", headline.Trap},
		{"Oops: kernel access of bad area, sig: 11", headline.Trap},
		{"Oops! something went wrong", headline.NoHeadline},
		{"Oops: no such file", headline.NoHeadline},
		{"prog: Oops: 0000 [#1]", headline.NoHeadline},
		{"see the ticket [#12]", headline.NoHeadline},
		{"commit of a: 12 [#3]", headline.NoHeadline},
		{"PANIC: double fault, error_code: 0x0", headline.Fault},
		{"PANIC: could not write to file", headline.NoHeadline},
		{"illegal operation: 0001 ilc:1 [#1] SMP", headline.Trap},
		{"Unhandled kernel unaligned access[#1]:", headline.Trap},
		{"swapper(0): Kernel bad sw trap 5 [#1]", headline.Trap},
		{"Kernel BUG [#1]", headline.Trap},
		{"BUG kmalloc-64 (Not tainted): Redzone overwritten", headline.Fault},
		{"BUG report: see a page", headline.NoHeadline},
		{"Watchdog CPU:4 Hard LOCKUP", headline.Complaint},
		{"Watchdog CPU:4 became unstuck", headline.NoHeadline},
		{"BUG: spinlock bad magic on CPU#1, a/1", headline.Complaint},
		{"[ INFO: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected ]", headline.Complaint},
		{"usb port [#1] is up", headline.NoHeadline},
		{"segment not present: 0000 [#1] SMP", headline.Trap},
	} {
		if got := headline.RankOf(tc.text); got != tc.want {
			t.Errorf("%q: got %d, want %d", tc.text, got, tc.want)
		}
	}
}

func TestFinderSources(t *testing.T) {
	for _, tc := range []struct {
		name  string
		lines []string
		want  string
		from  headline.Source
	}{
		{"nothing", []string{"[    1.0] usb 1-1: new device"}, "", headline.NoCrash},
		{"a report without end", []string{"[    1.0] WARNING: at a.c:1 a"}, "WARNING: at a.c:1 a", headline.Current},
		{"a report with end", []string{"[    1.0] WARNING: at a.c:1 a", "[    1.1] ---[ end trace 0 ]---"}, "WARNING: at a.c:1 a", headline.Last},
		{"a message that says enough", []string{"[    1.0] WARNING: at a.c:1 a", "[    1.1] Kernel panic - not syncing: sysrq triggered crash"}, "Kernel panic - not syncing: sysrq triggered crash", headline.PanicLine},
		{"a message of another fault", []string{"[    1.0] BUG: a", "[    1.1] Kernel panic - not syncing: Aiee, killing interrupt handler!"}, "BUG: a", headline.Last},
		{"a fault that follows a complaint at once", []string{"[    1.0] BUG: sleeping function called from invalid context at a", "[    1.1] BUG: b"}, "BUG: b", headline.Current},
		{"a complaint that follows a fault at once", []string{"[    1.0] BUG: b", "[    1.1] BUG: sleeping function called from invalid context at a"}, "BUG: b", headline.Current},
		{"init that oopsed", []string{"[    1.0] BUG: a", "[    1.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009"}, "BUG: a", headline.Last},
		{"init that was killed", []string{"[    1.0] WARNING: at a.c:1 a", "[    1.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009"}, "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009", headline.PanicLine},
		{"a warning is no cause of a fatal exception", []string{"[    1.0] WARNING: at a.c:1 a", "[    1.1] Kernel panic - not syncing: Fatal exception"}, "Kernel panic - not syncing: Fatal exception", headline.PanicLine},
		{"a report long before the panic", []string{"[    1.0] BUG: a", "[  900.0] Kernel panic - not syncing: Oops"}, "Kernel panic - not syncing: Oops", headline.PanicLine},
		{"a report of another boot", []string{"[  900.0] BUG: a", "[    1.0] Kernel panic - not syncing: Oops"}, "Kernel panic - not syncing: Oops", headline.PanicLine},
		{"a complaint of another boot", []string{"[  900.0] BUG: a", "[    1.0] WARNING: at a.c:1 b"}, "WARNING: at a.c:1 b", headline.Current},
		{"a program's report", []string{"<12>[    1.0] BUG: a", "<12>[    1.1] Kernel panic - not syncing: b"}, "", headline.NoCrash},
		{"the end of another caller's report", []string{"[    1.0][    T1] BUG: a", "[    1.1][    T2] ---[ end trace 0 ]---"}, "BUG: a", headline.Current},
	} {
		var f headline.Finder
		for _, line := range tc.lines {
			f.Add(headline.Parse(line))
		}
		if got, from := f.Chosen(); got.Text != tc.want || from != tc.from {
			t.Errorf("%s: got %q, %v, want %q, %v", tc.name, got.Text, from, tc.want, tc.from)
		}
	}
}
