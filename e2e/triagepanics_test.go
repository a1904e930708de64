package e2e

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/corehaul/corehaul/e2e/lab"
	"github.com/corehaul/corehaul/kernel/signature"
	"github.com/corehaul/corehaul/kernel/unwind"
	"github.com/corehaul/corehaul/triage"
)

// triageKinds is what a report says of each panic of the lab: the kind, and the title for all kernels.
var triageKinds = map[string][2]string{
	"sysrq":           {"sysrq", "kernel panic: sysrq triggered crash"},
	"init-exit":       {"init-killed", "kernel panic: Attempted to kill init!"},
	"null-read":       {"null-dereference", "BUG: unable to handle kernel NULL pointer dereference in null_read"},
	"null-write":      {"null-dereference", "BUG: unable to handle kernel NULL pointer dereference in null_write"},
	"null-call":       {"call-through-null", "BUG: unable to handle kernel NULL pointer dereference in null_call"},
	"readonly-write":  {"page-fault", "BUG: unable to handle kernel paging request in readonly_write"},
	"nx-call":         {"page-fault", "BUG: unable to handle kernel paging request in data_words"},
	"divide-error":    {"divide-error", "divide error in divide_error"},
	"bug":             {"bug", "kernel BUG in bug"},
	"warn":            {"warning", "WARNING in warn"},
	"panic":           {"panic", "kernel panic: crashmod: crate NUM fell down"},
	"gp-fault":        {"general-protection", "general protection fault in gp_fault"},
	"list-corruption": {"list-corruption", "BUG: corrupted list in list_corruption"},
	"fortify":         {"fortify", "kernel BUG in fortify"},
	"stack-smash":     {"stack-corruption", "kernel panic: stack is corrupted in stack_smash"},
	"hung-task":       {"hung-task", "INFO: task hung in hung_task"},
	"oom":             {"oom", "kernel panic: Out of memory: system-wide panic_on_oom is enabled"},
	"nmi":             {"nmi", "kernel panic: NMI: Not continuing"},
	"hardirq":         {"null-dereference", "BUG: unable to handle kernel NULL pointer dereference in null_read"},
	"ipi":             {"null-dereference", "BUG: unable to handle kernel NULL pointer dereference in null_read"},
	"softirq":         {"null-dereference", "BUG: unable to handle kernel NULL pointer dereference in null_read"},
	"workqueue":       {"null-dereference", "BUG: unable to handle kernel NULL pointer dereference in null_read"},
	"kthread":         {"null-dereference", "BUG: unable to handle kernel NULL pointer dereference in null_read"},
	"bpf":             {"null-dereference", "BUG: unable to handle kernel NULL pointer dereference in null_read"},
	"traced":          {"null-dereference", "BUG: unable to handle kernel NULL pointer dereference in null_read"},
	"livepatch":       {"null-dereference", "BUG: unable to handle kernel NULL pointer dereference in weigh_crate"},
	"page-cache":      {"null-dereference", "BUG: unable to handle kernel NULL pointer dereference in force_page_cache_ra"},
	// Titles of these name no function of the module, because its functions are called like helpers of the kernel.
	"wild-pointer":   {"page-fault", ""},
	"invalid-opcode": {"invalid-opcode", ""},
	"refcount":       {"refcount", ""},
	"usercopy":       {"usercopy", ""},
	"stack-overflow": {"stack-overflow", ""},
	"soft-lockup":    {"soft-lockup", ""},
	"rcu-stall":      {"rcu-stall", ""},
}

// TestTriagePanics makes a report of every panic of the lab. Its frames are those that the kernel itself printed.
func TestTriagePanics(t *testing.T) {
	t.Parallel()
	for _, s := range lab.Panics() {
		t.Run(s.Kernel+" "+s.Crash, func(t *testing.T) {
			t.Parallel()
			c, err := lab.Panic(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			out, _ := judgesRun(t, 0, "corehaul", "report", "--json", c.Dump)
			var r triage.Report
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				t.Fatal(err)
			}
			want, ok := triageKinds[s.Crash]
			if !ok || string(r.Kind) != want[0] || want[1] != "" && r.Title != want[1] {
				t.Errorf("%s, %q; want %q", r.Kind, r.Title, want)
			}
			if len(r.Unread) > 0 {
				t.Errorf("unread: %q", r.Unread)
			}
			triageSigned(t, s, &r)
			printed := triagePrinted(t, s, &r)
			triageFrames(t, s, &r, printed)
			triageHas(t, r.Backtraces[0].Frames, triageCallers[s.Crash]...)
			if r.Crash.Livepatch != (s.Crash == "livepatch") || r.Livepatch("crashpatch") != r.Crash.Livepatch {
				t.Errorf("the place of the crash is one of a live patch: %v", r.Crash.Livepatch)
			}
			triageLikeCrash(t, c, r.Backtraces[0].Frames, printed)
		})
	}
}

// triageSignatures are the words of the signature of each panic of the lab, on all kernels. In [crashmod], "@" stands for the function of the kind
// with its two callers. "=" stands before a function of the kernel's own.
var triageSignatures = map[string]string{
	"sysrq": "sysrq", "init-exit": "init-killed", "oom": "oom", "nmi": "nmi",
	"null-read": "fault < @null_read < crashmod_write", "null-write": "fault < @null_write < crashmod_write",
	"null-call": "jump < @null_call < crashmod_write", "wild-pointer": "fault < @wild_pointer < crashmod_write",
	"readonly-write": "fault < @readonly_write < crashmod_write", "nx-call": "fault < data_words", "gp-fault": "fault < @gp_fault < crashmod_write",
	"divide-error": "divide-error < @divide_error < crashmod_write", "invalid-opcode": "bug < @invalid_opcode < crashmod_write",
	"bug": "bug < @bug < crashmod_write", "warn": "bug < @warn < crashmod_write", "panic": "panic < @panic_call < crashmod_write",
	"list-corruption": "bug < @list_corruption < crashmod_write", "fortify": "bug < @fortify < crashmod_write",
	"refcount": "bug < refcount < crashmod_write", "usercopy": "bug < usercopy < crashmod_write", // their callers are called like helpers of the kernel
	"stack-overflow": "stack-overflow < stack_overflow", "stack-smash": "stack-corruption < stack_smash",
	"soft-lockup": "stall < crashmod_write < spin_outer", "rcu-stall": "stall < crashmod_write < spin_outer",
	"hung-task": "hung-task < @hung_task < crashmod_write",
	// One function, several callers.
	"hardirq": "fault < @null_read < hardirq_handler", "ipi": "fault < @null_read < ipi_handler", "softirq": "fault < @null_read < softirq_handler",
	"workqueue": "fault < @null_read < workqueue_handler", "kthread": "fault < @null_read < kthread_main",
	"page-cache": "fault < =force_page_cache_ra < =filemap_get_pages < =filemap_read",
}

// triageSigned wants the signature of a panic, from the log and from memory.
func triageSigned(t *testing.T, s lab.Scenario, r *triage.Report) {
	t.Helper()
	chain := regexp.MustCompile(`@(\w+)`).ReplaceAllString(triageSignatures[s.Crash], "$1 < ${1}_middle < ${1}_outer")
	want := strings.Split(chain, " < ")
	for i, word := range want[1:] {
		if own, is := strings.CutPrefix(word, "="); is {
			want[1+i] = own
		} else {
			want[1+i] += " [crashmod]"
		}
	}
	for what, got := range map[string]*signature.Signature{"log": r.Signatures.Log, "memory": r.Signatures.Memory} {
		switch {
		case got == nil || got.Vague:
			t.Errorf("the signature of the %s is %+v", what, got)
		case triageSignatures[s.Crash] == "": // hooks and live patches put functions of the kernel's own into the stack
			if got.Class() != "fault" {
				t.Errorf("the signature of the %s is of %q", what, got.Frames)
			}
		case !slices.Equal(got.Frames, want):
			t.Errorf("the signature of the %s is of %q, want %q", what, got.Frames, want)
		}
	}
}

// triageCallers are functions that follow each other in the stacks of panics, by regular expressions: what neither the kernel nor
// crash prints as it is.
var triageCallers = map[string][]string{
	"bpf": {`ftrace_handler \[crashmod\]`, `ftrace_trampoline \[__builtin__ftrace\]`, `bpf_user_rnd_u32 \[\]`, `bpf_prog_[0-9a-f]{16}_lab_filter \[\]`},
	// The name is that of the function that was replaced.
	"livepatch": {`weigh_crate \[crashpatch\] \(live patch\)`, `weigh_crate_middle \[crashmod\]`, `weigh_crate_outer \[crashmod\]`},
	"traced":    {`traced_middle \[crashmod\]`, `traced_outer \[crashmod\]`, `crashmod_write \[crashmod\]`},
}

// triageHas wants proved frames of functions that follow each other.
func triageHas(t *testing.T, frames []triage.Frame, want ...string) {
	t.Helper()
	var got strings.Builder
	for _, f := range frames {
		if f.Proved() {
			mark := ""
			if f.Livepatch {
				mark = " (live patch)"
			}
			fmt.Fprintf(&got, "%s [%s]%s\n", f.Function, f.Module, mark)
		}
	}
	if !regexp.MustCompile(strings.Join(want, `\n`)).MatchString(got.String()) {
		t.Errorf("no %q in\n%s", want, got.String())
	}
}

// triagePrinted returns the frames of the call trace in the log that the kernel proved.
func triagePrinted(t *testing.T, s lab.Scenario, r *triage.Report) (places []string) {
	t.Helper()
	if r.Log == nil || len(r.Log.Traces) == 0 || len(r.Backtraces) == 0 {
		t.Fatalf("no trace, or no backtrace: %+v", r)
	}
	for _, f := range r.Log.Traces[0].Frames {
		switch {
		case f.Unreliable:
		case f.Function == "": // code made at run time that has no names in traces
			places = append(places, f.Address)
		case s.Crash == "traced" && f.Offset == f.Size: // the code of a kretprobe, by the symbol that ends where it begins
			places = append(places, triageHooked)
		default:
			places = append(places, triagePlace(f.Function, f.Offset, f.Module))
		}
	}
	return places
}

// triageHooked stands for a frame that the kernel prints as the code of a tracer.
const triageHooked = "the code of a tracer"

// triageFrames compares the frames in memory with those that the kernel printed.
func triageFrames(t *testing.T, s lab.Scenario, r *triage.Report, want []string) {
	t.Helper()
	stack := r.Backtraces[0]
	if s.Crash == "hung-task" { // the kernel prints the stack of the task that hangs; another one panics
		stack = r.Blocked[0]
	}
	var got []string
	for i, f := range stack.Frames {
		// The log has a line RIP for what an interrupt or exception interrupted.
		switch {
		case f.User || i > 0 && len(f.Registers) > 0:
		case strings.HasPrefix(f.Module, "__builtin__"):
			got = append(got, f.Address)
		default:
			got = append(got, triagePlace(f.Function, f.Offset, f.Module))
		}
	}
	// panic() prints its trace in one place, and goes on to the capture kernel in another.
	printed := slices.IndexFunc(want, func(f string) bool { return strings.HasPrefix(f, "panic+") || strings.HasPrefix(f, "vpanic+") })
	want = want[printed+1:]
	if len(want) == 0 { // of nx-call, where the kernel finds no frame that it can prove
		return
	}
	at := slices.Index(got, want[0])
	same := func(have, want string) bool { return have == want || want == triageHooked }
	if at < 0 || len(got) < at+len(want) || !slices.EqualFunc(got[at:at+len(want)], want, same) {
		t.Errorf("got\n%s\nthe kernel says\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !stack.Complete && s.Crash != "stack-smash" { // which overwrites where it would return to
		t.Errorf("the walk ended: %s", stack.End)
	}
}

func triagePlace(function string, offset uint64, module string) string {
	return fmt.Sprintf("%s+%#x [%s]", function, offset, module)
}

// triageLikeCrash wants the frames of the task that panicked in the bt of crash. printed are those that the kernel proved itself: on 5.10, crash 8.0.6
// leaves out what lies between the stacks of a softirq and of its task.
func triageLikeCrash(t *testing.T, c *lab.PanicCapture, frames []triage.Frame, printed []string) {
	t.Helper()
	if !c.CrashOpens() {
		return
	}
	said, err := c.Crash(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{} // by address: of several names at one, crash may print another
	for _, f := range triageFrame.FindAllStringSubmatch(said["bt"], -1) {
		known[f[3]] = true
	}
	for i, f := range frames {
		switch {
		case i == 0 || len(f.Registers) > 0 || f.Function == "":
			// where registers were saved, or what overwrote a return address
		case f.Found == unwind.FromTracer, strings.HasPrefix(f.Module, "__builtin__"):
			// crash 8.0.6 leaves these out.
		case strings.HasSuffix(frames[i-1].Function, "panic"):
			// The call does not return, so nothing of its function needs to lie behind it. crash 8.0.6 leaves out some of these.
		case !known[f.Address] && !slices.Contains(printed, triagePlace(f.Function, f.Offset, f.Module)):
			t.Errorf("crash has no frame %s at %s:\n%s", f.Function, f.Address, said["bt"])
		}
	}
}
