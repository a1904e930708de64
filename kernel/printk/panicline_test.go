package printk_test

import (
	"strings"
	"testing"

	"github.com/corehaul/corehaul/kernel/printk"
)

func TestPanicLine(t *testing.T) {
	const boot = `
[    0.000000] Linux version 6.1.0
[    1.000000] WARNING: CPU: 0 PID: 1 at kernel/workqueue.c:1 f+0x1/0x2
[    1.000001] ---[ end trace 0000000000000000 ]---
`
	for _, tc := range []struct{ name, log, want string }{
		{"no crash", "[    0.000000] Linux version 6.1.0\n[    0.100000] Memory: 1K\n", ""},
		{
			"sysrq", boot + "[    3.2] sysrq: Trigger a crash\n[    3.223120] Kernel panic - not syncing: sysrq triggered crash\n",
			"Kernel panic - not syncing: sysrq triggered crash",
		},
		{
			"null pointer", boot + `
[    9.100000] BUG: kernel NULL pointer dereference, address: 0000000000000008
[    9.100001] #PF: supervisor write access in kernel mode
[    9.100002] Oops: 0002 [#1] PREEMPT SMP PTI
[    9.100003] ---[ end trace 0000000000000000 ]---
[    9.100004] Kernel panic - not syncing: Fatal exception
`,
			"BUG: kernel NULL pointer dereference, address: 0000000000000008",
		},
		{
			"dump taken before the panic message", boot + `
[    9.100000] BUG: unable to handle page fault for address: ffffc90000000000
[    9.100002] Oops: 0000 [#1] PREEMPT SMP PTI
`,
			"BUG: unable to handle page fault for address: ffffc90000000000",
		},
		{
			"BUG_ON", `
[   10.000000] ------------[ cut here ]------------
[   10.000001] kernel BUG at mm/slub.c:379!
[   10.000002] invalid opcode: 0000 [#1] PREEMPT SMP NOPTI
[   10.000003] ---[ end trace 0000000000000000 ]---
[   10.000004] Kernel panic - not syncing: Fatal exception in interrupt
`,
			"kernel BUG at mm/slub.c:379!",
		},
		{
			"general protection fault of 6.12", `
[    5.000000] Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1] PREEMPT SMP
[    5.000001] Kernel panic - not syncing: Fatal exception
`,
			"Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1] PREEMPT SMP",
		},
		{
			"divide error", "[    5.0] divide error: 0000 [#1] SMP\n[    5.1] Kernel panic - not syncing: Fatal exception\n",
			"divide error: 0000 [#1] SMP",
		},
		{
			"arm64", `
[    5.000000] Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000
[    5.000001] Internal error: Oops: 0000000096000044 [#1] SMP
[    5.000002] ---[ end trace 0000000000000000 ]---
[    5.000003] Kernel panic - not syncing: Oops: Fatal exception
`,
			"Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000",
		},
		{
			"soft lockup", `
[   60.000000] watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [burn:345]
[   60.000001] Kernel panic - not syncing: softlockup: hung tasks
`,
			"watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [burn:345]",
		},
		{
			"panic_on_warn", `
[   60.000000] WARNING: CPU: 1 PID: 345 at drivers/x.c:9 f+0x1/0x2
[   60.000001] Kernel panic - not syncing: kernel: panic_on_warn set ...
`,
			"WARNING: CPU: 1 PID: 345 at drivers/x.c:9 f+0x1/0x2",
		},
		{
			"init died", "[    2.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n",
			"Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
		},
		{
			"two oopses, the last one counts", `
[    5.000000] BUG: first
[    5.000001] ---[ end trace 0000000000000000 ]---
[    6.000000] BUG: second
[    6.000001] ---[ end trace 0000000000000000 ]---
[    6.000002] Kernel panic - not syncing: Fatal exception
[    6.100000] BUG: after the panic
`,
			"BUG: second",
		},
		{
			"caller ids", "[    5.000000][   T12] BUG: with a caller\n[    5.1][    C1] Kernel panic - not syncing: Fatal exception\n",
			"BUG: with a caller",
		},
		{
			"nothing but a vague panic", "[    5.0] Kernel panic - not syncing: Fatal exception\n",
			"Kernel panic - not syncing: Fatal exception",
		},
		{
			"soft lockup of 4.x", "[   60.0] NMI watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [a:1]\n[   60.1] Kernel panic - not syncing: softlockup: hung tasks\n",
			"NMI watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [a:1]",
		},
		{
			"hard lockup of powerpc", boot + "[   60.0] watchdog: CPU 4 self-detected hard LOCKUP @ a+0x1/0x2\n[   60.1] Kernel panic - not syncing: Hard LOCKUP\n",
			"watchdog: CPU 4 self-detected hard LOCKUP @ a+0x1/0x2",
		},
		{
			"oops of 6.10 and later", `
[    9.100000] BUG: kernel NULL pointer dereference, address: 0000000000000008
[    9.100002] Oops: Oops: 0002 [#1] SMP NOPTI
[    9.100003] ---[ end trace 0000000000000000 ]---
[    9.100004] Kernel panic - not syncing: Fatal exception
`,
			"BUG: kernel NULL pointer dereference, address: 0000000000000008",
		},
		{
			"a task that hung long before", `
[  200.000000] INFO: task jbd2/sda1-8:301 blocked for more than 120 seconds.
[ 9000.100000] BUG: kernel NULL pointer dereference, address: 0000000000000008
[ 9000.100002] Oops: 0002 [#1] PREEMPT SMP PTI
[ 9000.100003] ---[ end trace 0000000000000000 ]---
[ 9000.100004] Kernel panic - not syncing: Fatal exception
`,
			"BUG: kernel NULL pointer dereference, address: 0000000000000008",
		},
		{
			"a bad page long before a trap", `
[  200.000000] BUG: Bad page state in process a  pfn:12345
[ 9000.100002] divide error: 0000 [#1] PREEMPT SMP PTI
[ 9000.100003] ---[ end trace 0000000000000000 ]---
[ 9000.100004] Kernel panic - not syncing: Fatal exception
`,
			"divide error: 0000 [#1] PREEMPT SMP PTI",
		},
		{
			"what the sanitizer found comes before what it led to", `
[  200.000000] BUG: KASAN: use-after-free in f+0x1/0x2
[  200.100000] general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP KASAN
[  200.100004] Kernel panic - not syncing: Fatal exception
`,
			"BUG: KASAN: use-after-free in f+0x1/0x2",
		},
		{
			"hung tasks", `
[  200.000000] INFO: task a:1 blocked for more than 120 seconds.
[  200.010000] INFO: task b:2 blocked for more than 120 seconds.
[  200.020000] Kernel panic - not syncing: hung_task: blocked tasks
`,
			"INFO: task a:1 blocked for more than 120 seconds.",
		},
		{
			"out of memory", "[    5.0] a invoked oom-killer: gfp_mask=0x0\n[    5.1] Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled\n",
			"Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled",
		},
		{
			"SError of arm64", boot + "[   60.0] SError Interrupt on CPU1, code 0x00000000be000000 -- SError\n[   60.1] Kernel panic - not syncing: Asynchronous SError Interrupt\n",
			"SError Interrupt on CPU1, code 0x00000000be000000 -- SError",
		},
		{
			"panic by UBSAN", boot + "[   60.0] UBSAN: array-index-out-of-bounds in a.c:1:2\n[   60.1] Kernel panic - not syncing: UBSAN: panic_on_warn set ...\n",
			"UBSAN: array-index-out-of-bounds in a.c:1:2",
		},
		{
			"trap of s390", boot + "[   60.0] illegal operation: 0001 ilc:1 [#1] SMP\n[   60.1] Kernel panic - not syncing: Fatal exception: panic_on_oops\n",
			"illegal operation: 0001 ilc:1 [#1] SMP",
		},
		{
			"loongarch", boot + `
[   60.0] CPU 0 Unable to handle kernel paging request at virtual address 0000000000000000, era == 9000000000200000, ra == 9000000000200000
[   60.1] Oops[#1]:
[   60.2] Kernel panic - not syncing: Fatal exception
`,
			"CPU 0 Unable to handle kernel paging request at virtual address 0000000000000000, era == 9000000000200000, ra == 9000000000200000",
		},
		{"a line that only looks like a trap", boot + "[   60.0] usb port [#1] is up\n[   60.1] Kernel panic - not syncing: NMI: Not continuing\n", "Kernel panic - not syncing: NMI: Not continuing"},
		{"levels before the time stamps", "<1>[    5.0] BUG: level\n<0>[    5.1] Kernel panic - not syncing: Fatal exception\n", "BUG: level"},
		{"without time stamps", "BUG: bare\r\nKernel panic - not syncing: Fatal exception\r\n", "BUG: bare"},
		{"odd brackets", "[\n[]\n[ 1.0\n[x] BUG: not at the start\n[    1.000000] \n", ""},
	} {
		if got := printk.PanicLine(strings.Split(tc.log, "\n")); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}
