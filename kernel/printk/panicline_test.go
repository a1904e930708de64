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
		{"without time stamps", "BUG: bare\r\nKernel panic - not syncing: Fatal exception\r\n", "BUG: bare"},
		{"odd brackets", "[\n[]\n[ 1.0\n[x] BUG: not at the start\n[    1.000000] \n", ""},
	} {
		if got := printk.PanicLine(strings.Split(tc.log, "\n")); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}
