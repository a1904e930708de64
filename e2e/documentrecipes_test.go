package e2e

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/corehaul/corehaul/e2e/lab"
)

// recipeTimeout is for a slow host: without it a guest that hangs would use up the time of all tests.
const recipeTimeout = 45 * time.Minute

// A recipe is a fenced block of a document. The words behind its fence say what it is:
//
//	sh collector           typed on the collecting host
//	sh collector server    likewise; its last command is a server, which goes on
//	sh web-17              typed on the machine that may crash
//	sh web-17 panics       likewise; that machine does not come back from it
//	sh redhat              typed on web-17 when it has the kdump of another distribution
//	sh kdump-tools         typed on a machine with Debian's kdump; kdumptoolshook_test.go does
//	sh netboot             typed where the image of a machine without a disk is made; netboot_test.go does
//	toml                   part of the receiver's configuration
//	text                   not typed, for a reason that recipesNotTyped has
type recipe struct {
	words []string
	text  string
	at    string // file and line
}

// recipesNotTyped has the reason for each block that nobody types, by document and by how it begins.
var recipesNotTyped = map[string]map[string]string{
	"README.md": {
		"   the machine that crashed": "a drawing",
		"make demo ":                  "make has its own run of these in continuous integration; it needs QEMU and the network",
		"crash VMLINUX":               "crash and its vmlinux take 600 MB (judged in levels_test.go); ssh is typed in operating.md",
	},
	"docs/operating.md": {
		"ssh-ed25519 AAAAC3Nza":     "a form, with keys cut short",
		"journalctl -u corehaul CO": "what to ask a journal; checkReload asks one such question",
		"systemctl stop corehaul\n": "another way to listen; checkSockets does it, and undoes it",
		"umask N ":                  "a list of commands; stockssh_test.go has them",
		"DATA/dumps/HOST/TIME-ID/":  "a list of files",
		"# /etc/exports":            "a Linux server's file; nfs_test.go and watch_test.go have Ganesha's",
		"watch = [":                 "one key of a configuration, of directories that the machines do not have; watch_test.go watches an export",
		"to = [\"nfs://":            "one key of a configuration; nfs_test.go sends to such a target",
		"to = [\"tls://collector:":  "one key of a configuration; filetarget_test.go writes to such a file system",
		"signature   3b5c":          "what a command prints; triagepanics_test.go has signatures of real dumps",
		"corehaul bt ID  ":          "crash, drgn and vmlinux take 900 MB; symbols_test.go starts them",
		"$ corehaul show 3b1f":      "what a command prints; groups.txtar has it",
		"corehaul group note 9c0a ": "the machines have no crash that is known; groups.txtar types these",
		"[network]\nvlan = 7":       "a part of a configuration; capturevlan_test.go has one like it",
		"[programs]":                "a part of a configuration; capture_test.go has one like it",
		"network: eth1 has 10.99":   "what a capture kernel prints; capturelinks_test.go has it",
	},
	"docs/kdump-admin.md": {
		"kdumpctl rebuild": "Debian has no package of it; TestDracutModule makes such an image",
		"mkdumprd -f":      "Debian has no package of SUSE's; TestDracutModule makes such an image",
	},
	"docs/on-call.md": {},
	"docs/kernel-engineer.md": {
		"export DEBUGINFOD_URLS": "crash, drgn and vmlinux take 900 MB; symbols_test.go starts them",
	},
	"docs/collector.md": {
		"apt install ./corehaul_NEW": "there is one version of the packages; README's block installs that",
	},
	"docs/machine.md": {
		"[arm]":        "the defaults of a configuration; TestPrepare has what becomes of them",
		"crashkernel=": "what a command prints; the machine types the command",
	},
}

// readRecipes takes a document's blocks out of it.
func readRecipes(t *testing.T, file string) []recipe {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", file))
	if err != nil {
		t.Fatal(err)
	}
	var found []recipe
	open := false
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		fence, ok := strings.CutPrefix(line, "```")
		switch {
		case ok && !open:
			found = append(found, recipe{words: strings.Fields(fence), at: fmt.Sprintf("%s:%d", file, n)})
			open = true
		case ok:
			open = false
		case open:
			found[len(found)-1].text += line
		}
	}
	if open || len(found) == 0 {
		t.Fatalf("%s: %d blocks, the last one open: %t", file, len(found), open)
	}
	return found
}

// Every block of the documents is either typed by a test, or there is a reason why not.
func TestRecipesAreAllTypedOrExplained(t *testing.T) {
	for file, reasons := range recipesNotTyped {
		unused := map[string]bool{}
		for start := range reasons {
			unused[start] = true
		}
		for _, r := range readRecipes(t, file) {
			switch strings.Join(r.words, " ") {
			case "sh collector", "sh collector server", "sh web-17", "sh web-17 panics", "sh redhat", "sh kdump-tools", "sh netboot", "toml":
			case "text":
				known := false
				for start := range reasons {
					if strings.HasPrefix(r.text, start) {
						known = true
						delete(unused, start)
					}
				}
				if !known {
					t.Errorf("%s: a text block that recipesNotTyped has no reason for:\n%s", r.at, r.text)
				}
			default:
				t.Errorf("%s: the fence says %q, which is no kind of block: see recipe", r.at, r.words)
			}
		}
		for start := range unused {
			t.Errorf("%s: no block begins with %q any more", file, start)
		}
	}
}

// The tests of recipes type what the documents say, block by block, as root on two machines with Debian and systemd: the
// collecting host, and one that panics when a block says so and whose dump the other one must have then. They are no subtests of one
// test: parallel subtests begin when all other tests have begun, and these take longest.

func TestRecipesOfREADME(t *testing.T) {
	t.Parallel()
	h := newRecipeHosts(t, recipeOptions{})
	h.typeAll(t, readRecipes(t, "README.md"))
	h.checkDump(t)
	for _, page := range []string{"docs/on-call.md", "docs/kernel-engineer.md", "docs/collector.md"} {
		h.typeAll(t, readRecipes(t, page))
	}
	h.checkDump(t) // restored from the backup
}

func TestRecipesOfOperating(t *testing.T) {
	t.Parallel()
	h := newRecipeHosts(t, recipeOptions{packagesOf: secondKernel})
	h.leaveDump(t)
	h.typeAll(t, readRecipes(t, "docs/operating.md"))
	h.typeAll(t, readRecipes(t, "docs/machine.md"))
	h.checkService(t)
	h.checkMachine(t)
	h.installKernel(t)
	h.crashAndReboot(t)
	h.typeAll(t, readRecipes(t, "docs/kdump-admin.md"))
	h.checkDump(t)
	h.checkImported(t)
	h.checkReport(t)
	h.checkMemory(t)
	h.checkReload(t)
	h.checkSockets(t)
	h.checkSSH(t)
	h.checkSecondDump(t)
	h.checkOldUnit(t)
}

// recipeHosts are the two machines.
type recipeHosts struct {
	guests  map[string]*lab.Installed
	mu      sync.Mutex
	console strings.Builder // of web-17
}

// recipeOptions are what the two machines have beside the usual.
type recipeOptions struct {
	// secondCard is the MAC address of a second network card of web-17. Empty means that there is none.
	secondCard string
	// packagesOf is a kernel of the lab whose packages are in kernel. Empty means none.
	packagesOf string
}

// newRecipeHosts boots them. Each has the programs and contrib, as a checkout after make build has.
func newRecipeHosts(t *testing.T, opts recipeOptions) *recipeHosts {
	t.Helper()
	dir := t.TempDir()
	if opts.packagesOf != "" {
		packages, err := lab.KernelPackages(t.Context(), opts.packagesOf)
		if err == nil {
			err = os.CopyFS(filepath.Join(dir, "checkout/kernel"), os.DirFS(packages))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bin", "contrib"} {
		if err := os.CopyFS(filepath.Join(dir, "checkout", name), os.DirFS(filepath.Join("..", name))); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), recipeTimeout)
	t.Cleanup(cancel)
	h := &recipeHosts{guests: map[string]*lab.Installed{}}
	for _, name := range []string{"collector", "web-17"} {
		card := ""
		if name == "web-17" {
			card = opts.secondCard
		}
		g, err := lab.StartInstalled(ctx, lab.InstalledOptions{
			Name: name, Network: filepath.Join(dir, "net"), Dir: filepath.Join(dir, "checkout"), SecondCard: card,
			OnLine: func(line string) { h.note(name, line) },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.Stop)
		h.guests[name] = g
	}
	return h
}

func (h *recipeHosts) note(name, line string) {
	if name == "web-17" {
		h.mu.Lock()
		defer h.mu.Unlock()
		_, _ = fmt.Fprintln(&h.console, line) // a strings.Builder takes all
	}
}

// said is what web-17 has written on its console.
func (h *recipeHosts) said() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.console.String()
}

// run runs a script of the test's own and returns what it printed.
func (h *recipeHosts) run(t *testing.T, on, script string) string {
	t.Helper()
	out, code, err := h.guests[on].Run(script)
	if err != nil || code != 0 {
		t.Fatalf("%s: exit code %d, %v\n%s\n%s", on, code, err, script, out)
	}
	return out
}

func (h *recipeHosts) typeAll(t *testing.T, recipes []recipe) {
	t.Helper()
	for _, r := range recipes {
		switch strings.Join(r.words, " ") {
		case "sh collector", "sh web-17":
			h.carry(t)
			h.typeOn(t, r.words[1], r)
		case "sh redhat":
			h.checkWrong(t, "web-17", otherKdump)
			h.typeOn(t, "web-17", r)
			h.checkWrong(t, "web-17", wrongCase{"that kdump is disabled", "systemctl restart corehaul-arm\nstatus_of", "0", nil})
		case "sh collector server":
			h.serve(t, r)
		case "sh web-17 panics":
			h.panic(t, r)
		case "toml":
			h.configure(t, r)
		}
	}
}

// typeOn types a block on a host.
func (h *recipeHosts) typeOn(t *testing.T, host string, r recipe) {
	t.Helper()
	start := time.Now()
	out, code, err := h.guests[host].Run(h.fill(t, r))
	if err != nil || code != 0 {
		t.Fatalf("%s, typed on %s: exit code %d, %v\n%s%s", r.at, host, code, err, out, h.why(host))
	}
	t.Logf("%s, on %s, %s\n%s", r.at, host, time.Since(start).Round(time.Second), recipeStart(out))
}

// recipeStart cuts what a block printed: one prints a kernel's log.
func recipeStart(out string) string {
	const most = 3000
	if len(out) > most {
		return out[:most] + "..."
	}
	return out
}

// configure starts the service with what a block adds to its configuration, and again without: rules would turn
// away what comes later.
func (h *recipeHosts) configure(t *testing.T, r recipe) {
	t.Helper()
	out := h.run(t, "collector", "cd /etc/corehaul\ncp serve.toml /run/serve.toml\ncat >> serve.toml <<'TOML'\n"+r.text+
		"TOML\nsystemctl restart corehaul\nsystemctl is-active corehaul\ncorehaul status\ncp /run/serve.toml .\nsystemctl restart corehaul")
	if !strings.HasPrefix(out, "active\n") {
		t.Errorf("%s: with this in its configuration the service is %s", r.at, out)
	}
	t.Logf("%s, in the configuration of the service\n%s", r.at, out)
}

// why is what the journal has of the service.
func (h *recipeHosts) why(on string) string {
	out, _, _ := h.guests[on].Run("journalctl --no-pager -n 30 -u corehaul -u corehaul-arm -u ssh; ls -lR /etc/corehaul; dmesg | tail -5") // best effort
	return out
}

// carry copies the files of web-17 to the host that does not have them, as the documents say.
func (h *recipeHosts) carry(t *testing.T) {
	t.Helper()
	if len(h.guests) < 2 {
		return // the machine has panicked
	}
	files := map[string][]string{}
	for name := range h.guests {
		files[name] = strings.Fields(h.run(t, name, "shopt -s nullglob; for f in web-17.*; do echo $f; done"))
	}
	for from, to := range map[string]string{"collector": "web-17", "web-17": "collector"} {
		for _, f := range files[from] {
			if slices.Contains(files[to], f) || f == "web-17.toml" {
				continue
			}
			data := h.run(t, from, "base64 "+f)
			if _, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(data, "\n", "")); err != nil {
				t.Fatalf("%s of %s: %v", f, from, err)
			}
			h.run(t, to, "umask 077; base64 -d > "+f+" <<END\n"+data+"END")
		}
	}
}

// fill puts the id of the one dump that is there in place of ID.
func (h *recipeHosts) fill(t *testing.T, r recipe) string {
	t.Helper()
	if !strings.Contains(r.text, " ID") {
		return r.text
	}
	name := strings.TrimSpace(h.run(t, "collector", "ls /var/lib/corehaul/dumps/web-17"))
	return strings.ReplaceAll(r.text, " ID", " "+name[strings.LastIndexByte(name, '-')+1:]) // of TIME-ID
}

// serve runs a block whose last command goes on, and waits until that says that it is ready.
func (h *recipeHosts) serve(t *testing.T, r recipe) {
	t.Helper()
	h.run(t, r.words[1], "cat > /run/server.sh <<'SERVER'\n"+r.text+"SERVER\nmkfifo /run/ready\n"+
		"setsid bash -e /run/server.sh > /run/ready 2> /run/server.log &\n"+
		"read -r line < /run/ready || { cat /run/server.log; exit 1; }\necho \"$line\"\ntest \"${line%% *}\" = ready")
}

// panic runs a block from which the machine does not come back, and waits until its capture kernel has rebooted.
func (h *recipeHosts) panic(t *testing.T, r recipe) {
	t.Helper()
	g := h.guests["web-17"]
	if out, code, err := g.Run(r.text); !errors.Is(err, io.EOF) {
		t.Fatalf("%s: the machine is still there: exit code %d, %v\n%s", r.at, code, err, out)
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	delete(h.guests, "web-17")
	t.Logf("the capture kernel said\n%s", captureSaid(&lab.Run{Console: h.said()}))
}

// checkDump looks at what the collector has of the machine that panicked.
func (h *recipeHosts) checkDump(t *testing.T) {
	t.Helper()
	if said := captureSaid(&lab.Run{Console: h.said()}); !strings.Contains(said, "corehaul-send: dump complete: ") {
		t.Errorf("the capture kernel said nothing of a complete dump:\n%s", said)
	}
	out := h.run(t, "collector", "corehaul ls\ncorehaul verify --all\ncorehaul ls --json | grep -c '\"state\": *\"complete\"'")
	t.Logf("the collector has\n%s", out)
	for _, want := range []string{"web-17", "complete", "sysrq triggered crash"} {
		if !strings.Contains(out, want) {
			t.Errorf("the collector has no word of %q", want)
		}
	}
}

// leaveDump gives the collector an old dump of its own, as Debian's kdump names it, and compressed since.
func (h *recipeHosts) leaveDump(t *testing.T) {
	t.Helper()
	dump, err := os.ReadFile("../vmcore/vmcoretest/testdata/makedumpfile-1.7.6-x86_64-zlib.kdump.gz")
	if err != nil {
		t.Fatal(err)
	}
	h.run(t, "collector", "umask 077; mkdir -p /var/crash/202611250800; cd /var/crash/202611250800; base64 -d > dump.202611250800.gz <<END\n"+
		base64.StdEncoding.EncodeToString(dump)+"\nEND\ntouch -d '1 hour ago' dump*")
}

// checkImported looks for that dump in the store, and imports it once more.
func (h *recipeHosts) checkImported(t *testing.T) {
	t.Helper()
	out := h.run(t, "collector", "corehaul ls --host lab-guest\nrunuser -u corehaul -- corehaul import /var/crash")
	t.Logf("the dump of /var/crash\n%s", out)
	if !strings.Contains(out, " complete ") || !strings.Contains(out, "0 dumps imported, 1 imported before") {
		t.Errorf("want the dump of /var/crash, once")
	}
}

// checkService looks at the service as systemd sees it, and restarts it.
func (h *recipeHosts) checkService(t *testing.T) {
	t.Helper()
	out := h.run(t, "collector", `systemctl is-active corehaul
systemctl restart corehaul
systemctl is-active corehaul
systemctl is-enabled corehaul
journalctl --no-pager -o cat -u corehaul | grep '^ready tls://.* ssh://'
stat -c '%U %a' /var/lib/corehaul
systemctl --failed --no-legend`)
	if lines := strings.Split(strings.TrimSpace(out), "\n"); lines[len(lines)-1] != "corehaul 750" {
		t.Errorf("want the data directory to be the service's alone, and no failed unit, got\n%s", out)
	}
}

// checkReload changes the configuration under the running service: a rule counts, a broken file does not, and the caller gets to know why.
func (h *recipeHosts) checkReload(t *testing.T) {
	t.Helper()
	out := h.run(t, "collector", journalHas+`main=$(systemctl show -P MainPID corehaul)
cp /etc/corehaul/serve.toml before.toml
printf '[[rule]]\nhost = "nobody"\nthen = "log"\n' >> /etc/corehaul/serve.toml
systemctl reload corehaul
journal_has 'configuration changed' 'key="rule 1" old=none'
corehaul status | grep '^rules *1$'
printf 'then = "dance"\n' >> /etc/corehaul/serve.toml
fails systemctl reload corehaul
journal_has 'serve.toml, line' 'then'
printf '[[rule]]\nthen = "dance"\n' | cat before.toml - > /etc/corehaul/serve.toml
fails systemctl reload corehaul
journal_has level=ERROR 'not reloaded, the configuration before still counts' 'it must be one of'
fails corehaul serve --check
systemctl is-active corehaul
corehaul status | grep '^rules *1$'
journalctl --no-pager -o cat -u corehaul COREHAUL_KEY='rule 1' -p info
systemctl show -P StatusText corehaul
cp before.toml /etc/corehaul/serve.toml
systemctl reload corehaul
test $main = $(systemctl show -P MainPID corehaul)`)
	t.Logf("reloads\n%s", out)
	for _, want := range []string{"the reload at", `level=INFO msg="configuration changed"`} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q", want)
		}
	}
}

// checkSockets lets systemd listen for the service.
func (h *recipeHosts) checkSockets(t *testing.T) {
	t.Helper()
	out := h.run(t, "collector", journalHas+`systemctl stop corehaul
install -m 0644 contrib/corehaul-tls.socket /etc/systemd/system/
systemctl daemon-reload
systemctl start corehaul-tls.socket
systemctl start corehaul
systemctl show -P TriggeredBy corehaul
systemctl is-active corehaul corehaul-tls.socket
systemctl show -P StatusText corehaul
systemctl stop corehaul corehaul-tls.socket
rm /etc/systemd/system/corehaul-tls.socket
systemctl daemon-reload
systemctl start corehaul`)
	t.Logf("with a socket of systemd\n%s", out)
	if !strings.Contains(out, "receiving dumps on tls://[::]:7420") {
		t.Error("want the service to receive on the socket")
	}
}

// checkSSH sends the dump once more, with the keys of the recipes, to corehaul's own SSH server and through OpenSSH's.
func (h *recipeHosts) checkSSH(t *testing.T) {
	t.Helper()
	for _, target := range []string{"ssh://dumps@" + lab.CollectorName + ":7422", "ssh://corehaul@" + lab.CollectorName} {
		out := h.run(t, "collector", `ssh-keyscan -T 300 -p 7422 `+lab.CollectorName+` > known_hosts
ssh-keyscan -T 300 `+lab.CollectorName+` >> known_hosts
corehaul-send send --to `+target+` --ssh-key web-17.key --known-hosts known_hosts "$(ls -d /var/lib/corehaul/dumps/web-17/* | head -1)/vmcore" 2>&1`)
		t.Logf("%s\n%s", target, out)
		if !strings.Contains(out, "dump complete") {
			t.Errorf("%s: want a complete dump", target)
		}
	}
}

// journalHas is a shell function: it waits until a line of the service's journal has all of its arguments, and prints the line.
const journalHas = `journal_has() {
	exec {lines}< <(exec journalctl -f -n all --no-pager -o cat -u corehaul)
	journal=$!
	while read -r line <&$lines; do
		has=1
		for part; do [[ $line == *"$part"* ]] || has=; done
		if [ $has ]; then echo "$line"; break; fi
	done
	exec {lines}<&-
	kill $journal || true # it may have ended, of SIGPIPE
}
`

// checkReport looks at the report that the service made of the dump, in the cage and in the unit with all that confines it.
func (h *recipeHosts) checkReport(t *testing.T) {
	t.Helper()
	out := h.run(t, "collector", journalHas+`journal_has 'msg="crash report"' host=web-17 of=dump kind=sysrq
ls /var/lib/corehaul/dumps/web-17/*/report.json
corehaul ls
corehaul show $(basename /var/lib/corehaul/dumps/web-17/* | sed 's/.*-//')
cat /var/lib/corehaul/dumps/web-17/*/report.json`)
	t.Logf("the service reports\n%s", recipeStart(out))
	for _, want := range []string{"sysrq triggered crash", "sysrq_handle_crash", `"memory"`, `"of": "dump"`} {
		if !strings.Contains(out, want) {
			t.Errorf("want %q in the report", want)
		}
	}
	if strings.Contains(out, `"unread"`) {
		t.Error("want nothing unread")
	}
	// No layer is missing, and none was in the way.
	if journal := h.run(t, "collector", "journalctl --no-pager -o cat -u corehaul"); strings.Contains(journal, "less protection") ||
		strings.Contains(journal, "program that reads dumps") || strings.Contains(journal, "level=ERROR") {
		t.Errorf("the journal of the service has\n%s", journal)
	}
}

// checkMemory lets the memory of the service run out, as a dump could that is made for that: the kernel ends the process that would go first,
// and systemd leaves the others alone.
func (h *recipeHosts) checkMemory(t *testing.T) {
	t.Helper()
	out := h.run(t, "collector", journalHas+`main=$(systemctl show -P MainPID corehaul)
systemctl set-property --runtime corehaul MemoryMax=256M
bash -c 'echo $$ > /sys/fs/cgroup/system.slice/corehaul.service/cgroup.procs; echo 1000 > /proc/self/oom_score_adj; exec tail /dev/zero' || true
journal_has 'killed by the OOM killer'
systemctl is-active corehaul
test $main = $(systemctl show -P MainPID corehaul)
systemctl set-property --runtime corehaul MemoryMax=infinity
corehaul status`)
	t.Logf("when memory has run out\n%s", out)
}

// checkOldUnit installs a unit file from before the cage: dumps arrive as before, and the log says how they get reports.
func (h *recipeHosts) checkOldUnit(t *testing.T) {
	t.Helper()
	out := h.run(t, "collector", journalHas+`cp "$(ls -d /var/lib/corehaul/dumps/web-17/* | head -1)/vmcore" old.vmcore
sed -i '/^SystemCallFilter=seccomp/d' /etc/systemd/system/corehaul.service
systemctl daemon-reload
systemctl stop corehaul
rm -r /var/lib/corehaul/dumps/web-17
systemctl start corehaul
journal_has level=ERROR 'install the corehaul.service of this version'
corehaul-send send --to ssh://dumps@`+lab.CollectorName+`:7422 --ssh-key web-17.key --known-hosts known_hosts old.vmcore 2>&1
journal_has level=ERROR host=web-17 'install the corehaul.service of this version'
corehaul ls
systemctl is-active corehaul`)
	t.Logf("with an old unit file\n%s", out)
	for _, want := range []string{"dump complete", "complete", "\nactive\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("with an old unit file, want %q", want)
		}
	}
}
