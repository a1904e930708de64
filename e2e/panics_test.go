package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
)

// A panicExpected is what a panic of the lab leaves behind.
type panicExpected struct {
	log string // a regular expression of the log, on a line
	// function is one that crash names in its backtrace of the panic task, the deepest that it sees. Callers of it are no good: where crash
	// cannot follow, it takes old words on the stack for frames, and what lies there depends on when the last interrupt came.
	function string
}

// panicsExpected has every kind of panic of the lab. The texts are those of the kernels' own sources, in the spelling of any of
// the kernels.
var panicsExpected = map[string]panicExpected{
	"sysrq":           {`sysrq: Trigger a crash`, "sysrq_handle_crash"},
	"init-exit":       {`Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000700`, "panic"}, // the last thread of init to exit panics: any of them
	"null-read":       {`BUG: kernel NULL pointer dereference, address: 0000000000000018`, "null_read"},
	"null-write":      {`#PF: supervisor write access in kernel mode`, "null_write"},
	"null-call":       {`RIP: 0010:0x0$`, "null_call"},
	"wild-pointer":    {`BUG: unable to handle page fault for address: fffffbad00000000`, "wild_pointer"},
	"readonly-write":  {`#PF: error_code\(0x0003\) - permissions violation`, "readonly_write"},
	"nx-call":         {`kernel tried to execute NX-protected page - exploit attempt\? \(uid: 0\)`, "nx_call"},
	"divide-error":    {`divide error: 0000 \[#1\]`, "divide_error"},
	"invalid-opcode":  {`invalid opcode: 0000 \[#1\]`, "invalid_opcode"},
	"bug":             {`kernel BUG at .*crashmod\.c:\d+!`, "bug"},
	"warn":            {`Kernel panic - not syncing: (kernel: )?panic_on_warn set \.\.\.`, "warn"},
	"refcount":        {`refcount_t: addition on 0; use-after-free\.`, "refcount"},
	"panic":           {`Kernel panic - not syncing: crashmod: crate \d+ fell down`, "panic_call_middle"},
	"gp-fault":        {`general protection fault, probably for non-canonical address 0xdead0000000000f0`, "gp_fault"},
	"list-corruption": {`list_del corruption\.`, "list_corruption"},
	"usercopy":        {`usercopy: Kernel memory overwrite attempt detected to kernel text`, "usercopy"},
	"stack-overflow":  {`BUG: (TASK )?stack guard page was hit at`, "stack_overflow"},
	"stack-smash":     {`Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: stack_smash\+`, "stack_smash"},
	"fortify":         {`detected buffer overflow in memset`, "fortify_panic"},
	"soft-lockup":     {`watchdog: BUG: soft lockup - CPU#0 stuck for \d+s! \[crasher:\d+\]`, "spin"},
	"rcu-stall":       {`Kernel panic - not syncing: RCU Stall`, "spin"},
	"hung-task":       {`INFO: task crasher:\d+ blocked for more than \d+ seconds\.`, "watchdog"},
	"oom":             {`Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled`, "out_of_memory"},
	"nmi":             {`Kernel panic - not syncing: NMI: Not continuing`, "spin"},
	"hardirq":         {`hardirq_handler\+`, "null_read"},
	"ipi":             {`ipi_handler\+`, "null_read"},
	"softirq":         {`softirq_handler\+`, "null_read"},
	"workqueue":       {`Workqueue: events workqueue_handler`, "null_read"},
	"kthread":         {`Comm: crashmod/\d+ `, "null_read"},
	"bpf":             {`ftrace_handler\+`, "null_read"},
	"traced":          {`null_read_outer\+`, "null_read"},
	"livepatch":       {`RIP: 0010:weigh_crate\+0x[0-9a-f]+/0x[0-9a-f]+ \[crashpatch\]$`, "weigh_crate_middle"},
	"page-cache":      {`RIP: 0010:(force_page_cache_ra|page_cache_sync_ra)\+`, "filemap_read"},
}

// TestPanics checks that every panic of the lab is the one that was asked for.
func TestPanics(t *testing.T) {
	t.Parallel()
	for _, s := range lab.Panics() {
		t.Run(s.Kernel+" "+s.Crash, func(t *testing.T) {
			t.Parallel()
			want, ok := panicsExpected[s.Crash]
			if !ok {
				t.Fatalf("nobody says what %q looks like", s.Crash)
			}
			c, err := lab.Panic(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			log, err := os.ReadFile(c.Log)
			if err != nil {
				t.Fatal(err)
			}
			// What was before the panic is none of its report.
			_, report, _ := strings.Cut(string(log), "lab: crashing now\n")
			if !regexp.MustCompile(`(?m)` + want.log).MatchString(report) {
				t.Errorf("the log has no %q:\n%s", want.log, report)
			}
			panicsCrash(t, c, want.function)
		})
	}
}

// panicsCrash checks that crash finds the function in its backtrace of the task that panicked.
func panicsCrash(t *testing.T, c *lab.PanicCapture, function string) {
	t.Helper()
	if !c.CrashOpens() {
		return
	}
	got, err := c.Crash(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if frame := fmt.Sprintf(`\b%s\b`, function); !regexp.MustCompile(frame).MatchString(got["bt"]) {
		t.Errorf("crash's bt has no %s:\n%s", function, got["bt"])
	}
}
