package command

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const dir = "/var/crash/10.0.0.7-2026-03-01-12:00:07"

// known are the command lines of stock clients, as they were seen on the wire.
var known = map[string]Script{
	// Red Hat
	"mkdir -p " + dir: {{Mkdir{Path: dir, Parents: true}}},
	"umask 0077 && dd of='" + dir + "/vmcore-dmesg-incomplete.txt'":                {{Umask{}, DD{Path: dir + "/vmcore-dmesg-incomplete.txt", BlockSize: 512}}},
	"mv " + dir + "/vmcore-dmesg-incomplete.txt " + dir + "/vmcore-dmesg.txt":      {{Move{dir + "/vmcore-dmesg-incomplete.txt", dir + "/vmcore-dmesg.txt"}}},
	"umask 0077 && dd bs=512 of='" + dir + "/vmcore-incomplete'":                   {{Umask{}, DD{Path: dir + "/vmcore-incomplete", BlockSize: 512}}},
	"mv '" + dir + "/vmcore-incomplete' '" + dir + "/vmcore.flat'":                 {{Move{dir + "/vmcore-incomplete", dir + "/vmcore.flat"}}},
	"umask 0077 && dd bs=512 of=" + dir + "/vmcore-incomplete":                     {{Umask{}, DD{Path: dir + "/vmcore-incomplete", BlockSize: 512}}},
	"dd bs=512 of=" + dir + "/vmcore-incomplete":                                   {{DD{Path: dir + "/vmcore-incomplete", BlockSize: 512}}},
	"echo fail kdump_test_id=17 > /var/crash/kdump-test-17/vmcore-creation.status": {{Echo{"fail kdump_test_id=17", "/var/crash/kdump-test-17/vmcore-creation.status"}}},
	"mktemp -dqp /var/crash":        {{Mktemp{"/var/crash"}}},
	"rmdir /var/crash/tmp.x":        {{Rmdir{"/var/crash/tmp.x"}}},
	"df --output=avail /var/crash":  {{Free{Path: "/var/crash"}}},
	"exit":                          {{Exit{}}},
	"dd of=a/b":                     {{DD{Path: "a/b", BlockSize: 512}}},
	"dd of=x bs=1M":                 {{DD{Path: "x", BlockSize: 1 << 20}}},
	"mkdir /var/crash/fe80::1-2010": {{Mkdir{Path: "/var/crash/fe80::1-2010"}}},
	"cat > /a/vmcore-incomplete":    {{Cat{"/a/vmcore-incomplete"}}},
	"ls -l /a/vmcore-incomplete":    {{List{"/a/vmcore-incomplete"}}},
	"df -P /var/crash":              {{Free{Path: "/var/crash", POSIX: true}}},
	// Debian
	"dd of=/var/crash/h-202603011200/dump-incomplete.gz": {{DD{Path: "/var/crash/h-202603011200/dump-incomplete.gz", BlockSize: 512}}},
	// SUSE
	"umask 077; mkdir -p /d && cat > /d/README.txt": {{Umask{}}, {Mkdir{Path: "/d", Parents: true}, Cat{"/d/README.txt"}}},
	// scp
	"scp -t /var/crash/":      {{SCP{Path: "/var/crash/", Receive: true}}},
	"scp -v -p -d -t -- -odd": {{SCP{Path: "-odd", Receive: true, Times: true, Directory: true}}},
	"scp -q -f \"/var/a b\"":  {{SCP{Path: "/var/a b"}}},
	"scp -r -t x":             {{SCP{Path: "x", Receive: true, Recursive: true}}},
}

// copyID is what ssh-copy-id of OpenSSH 9.2 sends.
const copyID = `exec sh -c 'cd ; umask 077 ; mkdir -p .ssh && { [ -z "` + "`tail -1c .ssh/authorized_keys 2>/dev/null`" + `" ] || echo >> .ssh/authorized_keys || exit 1; } && cat >> .ssh/authorized_keys || exit 1 ; if type restorecon >/dev/null 2>&1 ; then restorecon -F .ssh .ssh/authorized_keys ; fi'`

var foreign = []string{
	"", ";", "#", "id", "sh", "/bin/mkdir -p x", "mkdir", "mkdir a b", "mkdir -p", "mkdir -m 777 x", "mkdir -p $HOME", "mkdir `id`", "mkdir $(id)", "mkdir ${x}",
	"mkdir *", "mkdir a?", "mkdir [a]", "mkdir ~", "mkdir ~root/x", `mkdir a\ b`, `mkdir "a\"b"`, `mkdir "$x"`, "mkdir $'a'", `mkdir ""`, `mkdir $"a"`,
	"mkdir a & ", "mkdir a | cat > b", "mkdir a || mkdir b", "! mkdir a", "(mkdir a)", "{ mkdir a; }", "X=1 mkdir a", "X=1", "if mkdir a; then mkdir b; fi",
	"f() { mkdir a; }", "mkdir a > b", "cat", "cat a", "cat < a", "cat a > b", "cat >> a", "cat > a > b", "cat 2> a", "cat >& a", "cat >| a", "cat <<E\nE\n", "cat > $x", "cat > ''", "echo a", "echo -e a > b",
	"echo a >> b", "echo $x > b", "dd", "dd of=", "dd if=/etc/passwd", "dd of=a if=b", "dd of=a of=b", "dd bs=0 of=a", "dd bs=-1 of=a", "dd bs=1 bs=1 of=a", "dd bs=99999999999 of=a", "dd of=a seek=1", "dd conv=notrunc of=a",
	"mv a", "mv a b c", "mv -f a b", "rm -rf a", "rmdir -p a", "rmdir --ignore-fail-on-non-empty", "mktemp", "mktemp -d", "mktemp -dqp", "df", "df /", "df -h /", "ls", "ls /", "ls -la /", "exit 1", "umask", "umask 9", "umask u+rwx",
	"scp", "scp -t", "scp -f -t x", "scp a b", "scp -t a b", "scp -S id -t a", "scp -t ''", "scp -oProxyCommand=id -f a", "/usr/lib/openssh/sftp-server", "internal-sftp",
	"rsync --server . x", "mkdir a;;", "mkdir 'a", "mkdir a\x00b", "time mkdir a", "eval mkdir a", "exec mkdir a", "(((((", strings.Repeat("mkdir a && ", 100) + "mkdir a",
	strings.Repeat("x", MaxBytes+1), copyID,
}

func TestParse(t *testing.T) {
	for line, want := range known {
		got, err := Parse(line)
		if err != nil || cmp.Diff(want, got) != "" {
			t.Errorf("%q: %v\n%s", line, err, cmp.Diff(want, got))
		}
	}
	for _, line := range foreign {
		got, err := Parse(line)
		if got != nil || !errors.Is(err, ErrUnknown) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: got %v, %v", line, got, err)
		}
	}
}

// FuzzParse holds what is taken to its word: a script is not empty, no path looks like an option or an expansion
// that was missed, and what the shell would do otherwise is refused.
func FuzzParse(f *testing.F) {
	for line := range known {
		f.Add(line)
	}
	for _, line := range foreign {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		script, err := Parse(line)
		if err != nil {
			if script != nil || !errors.Is(err, ErrUnknown) {
				t.Fatalf("%q: %v and %v", line, script, err)
			}
			return
		}
		for _, chain := range script {
			for _, op := range chain {
				for _, p := range paths(op) {
					if p == "" || strings.ContainsRune(p, 0) || !strings.Contains(strings.NewReplacer(`'`, "", `"`, "", "\\\n", "").Replace(line), strings.NewReplacer(`'`, "", `"`, "").Replace(p)) {
						t.Errorf("%q: path %q is not in the line", line, p)
					}
				}
			}
		}
		if len(script) == 0 {
			t.Errorf("%q: an empty script", line)
		}
	})
}

func paths(op Op) []string {
	switch op := op.(type) {
	case Mkdir:
		return []string{op.Path}
	case DD:
		return []string{op.Path}
	case Cat:
		return []string{op.Path}
	case Move:
		return []string{op.From, op.To}
	case Rmdir:
		return []string{op.Path}
	case Mktemp:
		return []string{op.Parent}
	case Free:
		return []string{op.Path}
	case List:
		return []string{op.Path}
	case Echo:
		return []string{op.Path}
	case SCP:
		return []string{op.Path}
	}
	return nil
}
