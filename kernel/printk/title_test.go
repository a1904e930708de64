package printk_test

import (
	"testing"

	"github.com/corehaul/corehaul/kernel/printk"
)

func TestTitle(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"", ""},
		{"Kernel panic - not syncing: sysrq triggered crash", "Kernel panic - not syncing: sysrq triggered crash"},
		{"BUG: kernel NULL pointer dereference, address: 0000000000000010", "BUG: kernel NULL pointer dereference, address: ADDR"},
		{"BUG: unable to handle page fault for address: ffffb3c2c0a7fe18", "BUG: unable to handle page fault for address: ADDR"},
		{"watchdog: BUG: soft lockup - CPU#13 stuck for 22s! [dd:4711]", "watchdog: BUG: soft lockup - CPU#N stuck for Ns! [dd:N]"},
		{"watchdog: BUG: soft lockup - CPU#0 stuck for 134s! [kworker/3:1H:4711]", "watchdog: BUG: soft lockup - CPU#N stuck for Ns! [kworker]"},
		{"watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [kworker/u8:2:77]", "watchdog: BUG: soft lockup - CPU#N stuck for Ns! [kworker]"},
		{"INFO: task jbd2/sda1-8:301 blocked for more than 120 seconds.", "INFO: task jbd2/sda1-N:N blocked for more than N seconds."},
		{"kernel BUG at fs/ext4/inode.c:2732!", "kernel BUG at fs/ext4/inode.c:N!"},
		{
			"WARNING: CPU: 3 PID: 991 at drivers/gpu/drm/i915/intel_pm.c:12 skl_wm.isra.0.cold+0x1d/0x40 [i915]",
			"WARNING: CPU: N PID: N at drivers/gpu/drm/i915/intel_pm.c:N skl_wm [i915]",
		},
		{
			"general protection fault, probably for non-canonical address 0xdead000000000108: 0000 [#1] PREEMPT SMP PTI",
			"general protection fault, probably for non-canonical address ADDR: N",
		},
		{"Internal error: Oops: 0000000096000046 [#2] SMP", "Internal error: Oops: ADDR"},
		{"Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009", "Kernel panic - not syncing: Attempted to kill init! exitcode=x9"},
		{"Kernel panic - not syncing: Attempted to kill init! exitcode=0x00007f00", "Kernel panic - not syncing: Attempted to kill init! exitcode=x7f00"},
		{"Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)", "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(N,N)"},
		{"rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"},
		{"  BUG:  spaces \t here 7 ", "BUG: spaces here N"},
	} {
		got := printk.Title(tc.in)
		if got != tc.want {
			t.Errorf("%q:\n got %q\nwant %q", tc.in, got, tc.want)
		}
		if again := printk.Title(got); again != got {
			t.Errorf("title of %q is %q", got, again)
		}
	}
}

// FuzzTitle holds titles to be their own titles: a list that is grouped again stays grouped.
func FuzzTitle(f *testing.F) {
	f.Add("BUG: unable to handle page fault for address: ffffb3c2c0a7fe18 a+0x10/0x20")
	f.Add("[#1] 0x12345678 kworker/u8:2 12s 0x0 exitcode=0x01")
	f.Fuzz(func(t *testing.T, line string) {
		got := printk.Title(line)
		if again := printk.Title(got); again != got {
			t.Errorf("%q: title %q, of that %q", line, got, again)
		}
	})
}
