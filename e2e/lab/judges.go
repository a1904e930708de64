package lab

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// judgePackages hold crash 8.0.6 and makedumpfile 1.7.6; bookworm's are too old
// for the kernels of the lab.
var judgePackages = []string{"crash", "makedumpfile"}

// A judge is a program of another suite, run by that suite's own loader.
type judge struct {
	name string
	root string
}

func getJudge(ctx context.Context, name string) (*judge, error) {
	dir, err := cached(ctx, "judges", "trixie", func(dir string) error {
		apt, err := newApt(ctx, "trixie", "amd64")
		if err != nil {
			return err
		}
		packages := judgePackages
		for _, p := range judgePackages {
			libs, err := apt.libraries(ctx, p)
			if err != nil {
				return err
			}
			packages = append(packages, libs...)
		}
		return apt.fetch(ctx, dir, packages...)
	})
	if err != nil {
		return nil, err
	}
	return &judge{name: name, root: filepath.Join(dir, "usr")}, nil
}

// argv is the command line that runs the judge with args.
func (j *judge) argv(args ...string) []string {
	return append([]string{
		filepath.Join(j.root, "lib64", "ld-linux-x86-64.so.2"),
		"--library-path", filepath.Join(j.root, "lib", "x86_64-linux-gnu"),
		filepath.Join(j.root, "bin", j.name),
	}, args...)
}

// run returns what the judge wrote to either output, also when it failed.
func (j *judge) run(ctx context.Context, stdin string, args ...string) (string, error) {
	argv := j.argv(args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("lab: %s %s: %w: %s", j.name, strings.Join(args, " "), err, tail(out.String(), 10))
	}
	return out.String(), nil
}

// CrashPath returns the command that runs crash 8.0.6, arguments to be added.
func CrashPath(ctx context.Context) ([]string, error) {
	j, err := getJudge(ctx, "crash")
	if err != nil {
		return nil, err
	}
	return j.argv(), nil
}

// Crash opens a dump in crash 8.0.6 and returns what it prints for the given
// commands, without its banner. An error means that crash did not open the dump
// or did not live through the commands; a command that fails is in the text only.
func Crash(ctx context.Context, vmlinux, dump string, commands ...string) (string, error) {
	j, err := getJudge(ctx, "crash")
	if err != nil {
		return "", err
	}
	script := strings.Join(append(commands, "quit"), "\n") + "\n"
	return j.run(ctx, script, "-s", "--no_scroll", "--no_crashrc", vmlinux, dump)
}

// crashMark separates the answers of CrashEach; no command prints it.
const crashMark = "corehaul-lab-next-command"

// CrashEach is Crash with the output of each command by itself.
func CrashEach(ctx context.Context, vmlinux, dump string, commands ...string) (map[string]string, error) {
	var script []string
	for _, c := range commands {
		script = append(script, "!echo "+crashMark, c)
	}
	out, err := Crash(ctx, vmlinux, dump, script...)
	if err != nil {
		return nil, err
	}
	parts := strings.Split(out, crashMark+"\n")
	if len(parts) != len(commands)+1 {
		return nil, fmt.Errorf("lab: crash answered %d of %d commands: %s", len(parts)-1, len(commands), tail(out, 10))
	}
	answers := map[string]string{}
	for i, c := range commands {
		answers[c] = parts[i+1]
	}
	return answers, nil
}

// Makedumpfile runs makedumpfile 1.7.6 and returns what it printed, also when
// it failed. Its error then matches *exec.ExitError. Progress is left out
// unless the arguments ask for a message level.
func Makedumpfile(ctx context.Context, args ...string) (string, error) {
	j, err := getJudge(ctx, "makedumpfile")
	if err != nil {
		return "", err
	}
	const levelFlag = "--message-level"
	if !slices.Contains(args, levelFlag) {
		const commonAndErrors = "6"
		args = append([]string{levelFlag, commonAndErrors}, args...)
	}
	return j.run(ctx, "", args...)
}

//go:embed readall.py
var readAllScript string

// Pages is what libkdumpfile saw in a dump.
type Pages struct {
	// Count is the number of pages that it has.
	Count int `json:"count"`
	// SHA256 is over all of them in the order of their frame numbers, each
	// preceded by the frame number as a little-endian u64.
	SHA256 string `json:"sha256"`
}

// ReadAllPages has libkdumpfile 0.5.1, which drgn opens kdump files with, read
// every page of a dump: ELF or kdump-compressed, not flattened.
func ReadAllPages(ctx context.Context, dump string) (*Pages, error) {
	// Debian's own Python, not one that comes first in $PATH: it has the binding.
	cmd := exec.CommandContext(ctx, "/usr/bin/python3", "-", dump)
	cmd.Stdin = strings.NewReader(readAllScript)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("lab: libkdumpfile on %s: %w: %s", dump, err, tail(stderr.String(), 5))
	}
	var p Pages
	if err := json.Unmarshal(out, &p); err != nil {
		return nil, fmt.Errorf("lab: libkdumpfile said %q: %w", out, err)
	}
	if p.Count == 0 {
		return nil, errors.New("lab: libkdumpfile saw no page")
	}
	return &p, nil
}
