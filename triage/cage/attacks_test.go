package cage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// attacks are what the child of these tests does in place of reading a dump: what code could do that has taken it over.
// They return what the kernel answered, as answer.Failed.
var attacks = map[string]func() answer{
	"read files": func() answer {
		return tried(map[string]error{
			"/etc/passwd": open("/etc/passwd", os.O_RDONLY), "parent directory": open("../secret", os.O_RDONLY), "list": readDir("/"),
			"own memory": open("/proc/self/mem", os.O_RDONLY), "link": open("link", os.O_RDONLY),
		})
	},
	"write files": func() answer {
		return tried(map[string]error{
			"create": open("new", os.O_WRONLY|os.O_CREATE), "write": open("here", os.O_WRONLY), "both": open("here", os.O_RDWR),
			"truncate": open("here", os.O_RDONLY|os.O_TRUNC), "temporary": open(".", os.O_RDWR|unix.O_TMPFILE), "remove": unix.Unlink("here"),
			"rename": unix.Rename("here", "there"), "mkdir": unix.Mkdir("directory", 0o700), "chmod": unix.Chmod("here", 0o777),
			"truncate by name": unix.Truncate("here", 0), "link": unix.Symlink("here", "l"), "temporary directory": open(os.TempDir()+"/new", os.O_WRONLY|os.O_CREATE),
		})
	},
	"signals": func() answer {
		parent := os.Getppid()
		return tried(map[string]error{
			"kill": unix.Kill(parent, unix.SIGKILL), "tgkill": unix.Tgkill(parent, parent, unix.SIGKILL),
			"owner of a file": fcntl(1, unix.F_SETOWN, parent), "signal of a file": fcntl(1, unix.F_SETSIG, int(unix.SIGKILL)),
		})
	},
	"limits": func() answer {
		return tried(map[string]error{
			"memory": unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}),
			"nice":   unix.Setpriority(unix.PRIO_PROCESS, 0, 0), "shared memory": mapShared(), "executable memory": mapExecutable(),
			"parent's death": unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0), "process": forked(),
		})
	},
	"all threads": func() answer {
		var wg sync.WaitGroup
		var mu sync.Mutex
		got := map[string]error{}
		for i := range 8 {
			wg.Go(func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				err := open("/etc/passwd", os.O_RDONLY)
				mu.Lock()
				defer mu.Unlock()
				got[fmt.Sprint(i)] = err
			})
		}
		wg.Wait()
		return tried(got)
	},
	"threads": func() answer {
		for range 64 {
			go func() {
				runtime.LockOSThread()
				select {}
			}()
		}
		time.Sleep(24 * time.Hour)
		return answer{}
	},
	"blocked reads": blockedReads,
	"signals of systemd": func() answer {
		for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
			if err := unix.Tgkill(os.Getpid(), unix.Gettid(), signal); err != nil {
				return failedBy(err)
			}
		}
		return answer{Failed: "goes on"}
	},
	"socket":     func() answer { return failedBy(socket(unix.AF_UNIX)) },
	"internet":   func() answer { return failedBy(socket(unix.AF_INET)) },
	"exec":       func() answer { return failedBy(unix.Exec("/bin/true", []string{"true"}, nil)) },
	"ptrace":     func() answer { return failedBy(unix.PtraceAttach(os.Getppid())) },
	"io_uring":   func() answer { return failedBy(raw(unix.SYS_IO_URING_SETUP, 1, 0)) },
	"descriptor": func() answer { return failedBy(raw(unix.SYS_PIDFD_OPEN, uintptr(os.Getppid()), 0)) },
	"environment": func() answer {
		return answer{Failed: fmt.Sprintf("%d variables, %d arguments", len(os.Environ()), len(os.Args))}
	},
	"memory": func() answer {
		var all [][]byte
		for range 64 {
			block := make([]byte, 32<<20)
			for i := 0; i < len(block); i += 4096 {
				block[i] = 1
			}
			all = append(all, block)
		}
		return answer{Failed: fmt.Sprintf("took %d blocks of 32 MiB", len(all))}
	},
	"spin": func() answer {
		n := 0
		for n >= 0 {
			n = (n + 1) % 1000
		}
		return answer{}
	},
	"hang":           func() answer { time.Sleep(24 * time.Hour); return answer{} },
	"stack overflow": func() answer { return answer{Failed: fmt.Sprint(recursion(0))} },
	"concurrent map": func() answer {
		m := map[int]int{}
		for range 4 {
			go func() {
				for i := 0; ; i++ {
					m[i%8] = i
				}
			}()
		}
		select {}
	},
	"panic":     func() answer { panic("\x1b[31mred") },
	"no answer": func() answer { os.Exit(0); return answer{} },
	"code 7":    func() answer { os.Exit(7); return answer{} },
	"abort":     func() answer { _ = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGKILL); select {} },
	"output": func() answer {
		for {
			if _, err := os.Stdout.WriteString(strings.Repeat("x", 1<<16)); err != nil {
				return answer{}
			}
		}
	},
	"errors": func() answer {
		for range 100 {
			_, _ = os.Stderr.WriteString(strings.Repeat("y", 1<<16))
		}
		os.Exit(3)
		return answer{}
	},
	"garbage": func() answer {
		_, _ = os.Stdout.WriteString("{\"report\":{\"report_version\":2,\"\x1b[31m\":1}}\n")
		os.Exit(0)
		return answer{}
	},
	"disk": func() answer {
		front, page := os.NewFile(frontFD, "front"), make([]byte, 1<<20)
		for off := int64(0); ; off += int64(len(page)) {
			if _, err := front.WriteAt(page, off%(1<<30)); err != nil {
				return failedBy(err)
			}
		}
	},
}

// blockedReads lets many more goroutines wait in read(2) than those of a report, as on a disk that does not answer, and works meanwhile: with
// garbage, timers and goroutines.
func blockedReads() answer {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], 0); err != nil {
		return failedBy(err)
	}
	const most = maxThreads - 4
	var blocked, ended sync.WaitGroup
	blocked.Add(most)
	for range most {
		ended.Go(func() {
			blocked.Done()
			_, _ = unix.Read(pipe[0], make([]byte, 1))
		})
	}
	blocked.Wait()
	for range 10 {
		time.Sleep(time.Millisecond) // the runtime takes the processors of calls that last longer than 20 µs
		var work sync.WaitGroup
		for range 8 {
			work.Go(func() {
				runtime.GC()
				_ = strings.Repeat("x", 1<<20)
			})
		}
		work.Wait()
	}
	if _, err := unix.Write(pipe[1], make([]byte, most)); err != nil {
		return failedBy(err)
	}
	ended.Wait()
	return answer{Failed: "goes on"}
}

// What a child does before it is confined.
const (
	noCage     = "no cage"
	barred     = "landlock ends the process"
	noLandlock = "landlock is unknown"
	fullDisk   = "the disk is full"
)

// asParent is a program that starts the child.
const asParent = "parent"

// TestMain is the child of these tests too: it reads no dump but attacks.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == ChildCommand {
		os.Exit(testChild(os.Args[2:]))
	}
	if len(os.Args) == 4 && os.Args[1] == asParent {
		_, _, err := newCage(Limits{}).run(context.Background(), os.Args[2], os.Args[3])
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func testChild(args []string) int {
	switch args[0] {
	case noCage:
		fmt.Fprintln(os.Stderr, "no \x1b[31mcage")
		return 1
	case barred:
		bar(seccomp.ActionKillProcess)
		return Child([]string{ofNothing, args[1]})
	case fullDisk:
		fillFront()
		return Child([]string{ofDump, args[1]})
	case noLandlock:
		bar(seccomp.ActionErrno | seccomp.Action(unix.ENOSYS))
		args[0] = "write files"
	}
	attack, ok := attacks[args[0]]
	if !ok {
		return Child(args)
	}
	if err := child(args, func(string) answer { return attack() }); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// fillFront replaces the front by a file on a full disk, in a mount namespace of this process.
func fillFront() {
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNS)
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if err == nil {
		err = unix.Mount("tmpfs", "/mnt", "tmpfs", 0, "size=4k")
	}
	full := -1
	if err == nil {
		full, err = unix.Open("/mnt/front", unix.O_RDWR|unix.O_CREAT, 0o600)
	}
	if err == nil {
		err = unix.Dup3(full, frontFD, 0)
	}
	if err != nil {
		panic(err)
	}
	runtime.UnlockOSThread()
}

// bar does to landlock what a filter of systemd or of a container, or an old kernel does.
func bar(action seccomp.Action) {
	err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls:      []seccomp.SyscallGroup{{Action: action, Names: []string{"landlock_create_ruleset"}}},
	}})
	if err != nil {
		panic(err)
	}
}

// tried lists what was not refused.
func tried(got map[string]error) answer {
	var open []string
	for name, err := range got {
		if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
			open = append(open, fmt.Sprintf("%s: %v", name, err))
		}
	}
	if len(open) == 0 {
		return answer{Failed: "all refused"}
	}
	return answer{Failed: strings.Join(open, "; ")}
}

func failedBy(err error) answer { return answer{Failed: fmt.Sprintf("went on: %v", err)} }

func open(name string, flag int) error {
	fd, err := unix.Open(name, flag, 0o600)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}

func readDir(name string) error {
	_, err := os.ReadDir(name)
	return err
}

func socket(family int) error {
	_, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	return err
}

func raw(call, a, b uintptr) error {
	if _, _, errno := syscall.Syscall(call, a, b, 0); errno != 0 {
		return errno
	}
	return nil
}

func fcntl(fd uintptr, cmd, arg int) error {
	_, err := unix.FcntlInt(fd, cmd, arg)
	return err
}

func mapShared() error {
	_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON)
	return err
}

func mapExecutable() error {
	_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	return err
}

func forked() error {
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0)
	if errno == 0 {
		if pid == 0 {
			_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
		return nil
	}
	return errno
}

var frames [64]byte

func recursion(n int) int {
	var local [256]byte
	copy(local[:], frames[:])
	if n < 0 {
		return 0
	}
	return recursion(n+1) + int(local[n%256])
}

// attackedDir makes a directory with a file, beside a secret and a link to it.
func attackedDir(t *testing.T) string {
	t.Helper()
	parent := t.TempDir()
	dir := filepath.Join(parent, "dump")
	err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(parent, "secret"), nil, 0o644),
		os.WriteFile(filepath.Join(dir, "here"), []byte("here"), 0o644), os.Symlink("../secret", filepath.Join(dir, "link")))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
