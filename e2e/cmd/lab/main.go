// Command lab crashes virtual machines and asks the judges, for people.
// Tests use package e2e/lab instead. Run it from within the module e2e:
//
//	go -C e2e run ./cmd/lab capture -kernel 6.1 -cpu qemu64 -mem 1024 -kexec c [-busy]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/corehaul/corehaul/e2e/lab"
)

const usage = `usage: lab COMMAND ...
  capture [flags]               crash a machine, print the path of its vmcore (-h for flags)
  send [flags] INITRD           crash a machine, boot INITRD as its capture initramfs, print the console
  matrix                        capture every machine of the matrix
  panics [-kernel NAME] [KIND...]
                                capture every panic, or those of a kernel or some kinds, and ask crash about them
  kernels [-vmlinux] [NAME...]  fetch kernels (default: all), print their image, modules, vmlinux
  crash VMLINUX DUMP COMMAND... ask crash 8.0.6
  makedumpfile KERNEL ARG...    run the makedumpfile that is right about a kernel
  readall DUMP                  have libkdumpfile read every page
`

// errUsage is answered with the usage text and exit code 2.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	command, args := args[0], args[1:]
	switch command {
	case "capture":
		return capture(ctx, args, out)
	case "send":
		return send(ctx, args, out)
	case "matrix":
		return matrix(ctx, out)
	case "panics":
		return panics(ctx, args, out)
	case "kernels":
		return kernels(ctx, args, out)
	case "crash":
		if len(args) < 3 {
			return errUsage
		}
		return printText(out)(lab.Crash(ctx, args[0], args[1], args[2:]...))
	case "makedumpfile":
		if len(args) == 0 {
			return errUsage
		}
		k, err := lab.GetKernel(ctx, args[0])
		if err != nil {
			return err
		}
		return printText(out)(k.Makedumpfile(ctx, args[1:]...))
	case "readall":
		if len(args) != 1 {
			return errUsage
		}
		return readAll(ctx, args[0], out)
	}
	return errUsage
}

// scenarioFlags defines the flags that describe a machine.
func scenarioFlags(name string, s *lab.Scenario) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.StringVar(&s.Kernel, "kernel", "6.1", "kernel name, see lab kernels")
	f.StringVar(&s.CPU, "cpu", "", "qemu64, max or cortex-a57 (default by kernel)")
	f.IntVar(&s.MemMiB, "mem", 0, "memory in MiB (default 1024)")
	f.IntVar(&s.CrashkernelMiB, "crashkernel", 0, "memory of the capture kernel in MiB (default by kernel and memory)")
	f.StringVar(&s.Kexec, "kexec", "", "c or s (default c)")
	f.BoolVar(&s.Busy, "busy", false, "fill the memory")
	f.StringVar(&s.Crash, "crash", "", "sysrq or init-exit (default sysrq)")
	f.StringVar(&s.Append, "append", "", "more for the command line of the system kernel")
	return f
}

func capture(ctx context.Context, args []string, out io.Writer) error {
	var s lab.Scenario
	if err := scenarioFlags("capture", &s).Parse(args); err != nil {
		return errUsage
	}
	return captureOne(ctx, s, out)
}

func send(ctx context.Context, args []string, out io.Writer) error {
	var s lab.Scenario
	var opts lab.SenderOptions
	f := scenarioFlags("send", &s)
	f.StringVar(&opts.CaptureAppend, "capture-append", "", "more for the command line of the capture kernel")
	if err := f.Parse(args); err != nil || f.NArg() != 1 {
		return errUsage
	}
	var writeErr error
	opts.OnLine = func(line string) {
		if _, err := fmt.Fprintln(out, line); err != nil {
			writeErr = err
		}
	}
	_, err := lab.RunSender(ctx, s, f.Arg(0), opts)
	return errors.Join(err, writeErr)
}

func captureOne(ctx context.Context, s lab.Scenario, out io.Writer) error {
	start := time.Now()
	c, err := lab.CaptureELF(ctx, s)
	if err != nil {
		return fmt.Errorf("%s: %w", s.Name(), err)
	}
	_, err = fmt.Fprintf(out, "%-36s %5.1fs %s\n", s.Name(), time.Since(start).Seconds(), c.ELF)
	return err
}

// matrix goes on after a failure, so that one bad kernel does not hide others.
func matrix(ctx context.Context, out io.Writer) error {
	var all error
	for _, s := range lab.Matrix() {
		if err := captureOne(ctx, s, out); err != nil {
			fmt.Fprintln(os.Stderr, "lab:", err)
			all = errors.Join(all, fmt.Errorf("%s failed", s.Name()))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return all
}

// panics captures two at a time, since a part of each is the work of one CPU. Like matrix, it goes on after a failure. When
// all panics are in the cache, so that nobody uses the states in which they began, it removes these.
func panics(ctx context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("panics", flag.ContinueOnError)
	kernel := f.String("kernel", "", "kernel name, see lab kernels (default all)")
	if err := f.Parse(args); err != nil {
		return errUsage
	}
	var group errgroup.Group
	group.SetLimit(2)
	var failed atomic.Int32
	for _, s := range slices.Concat(lab.Panics(), lab.Rebuilds()) {
		if *kernel != "" && s.Kernel != *kernel || f.NArg() > 0 && !slices.Contains(f.Args(), s.Crash) {
			continue
		}
		group.Go(func() error {
			if err := panicOne(ctx, s, out); err != nil {
				fmt.Fprintln(os.Stderr, "lab:", err)
				failed.Add(1)
			}
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if n := failed.Load(); n > 0 {
		return fmt.Errorf("%d panics failed", n)
	}
	if *kernel != "" || f.NArg() > 0 {
		return nil
	}
	return lab.RemoveStates()
}

func panicOne(ctx context.Context, s lab.Scenario, out io.Writer) error {
	start := time.Now()
	c, err := lab.Panic(ctx, s)
	if err != nil {
		return fmt.Errorf("%s %s: %w", s.Kernel, s.Crash, err)
	}
	captured := time.Since(start)
	if c.CrashOpens() {
		if _, err := c.Crash(ctx); err != nil {
			return fmt.Errorf("%s %s: %w", s.Kernel, s.Crash, err)
		}
	}
	_, err = fmt.Fprintf(out, "%-5s %-16s %5.1fs, with crash %5.1fs %s\n", s.Kernel, s.Crash, captured.Seconds(), time.Since(start).Seconds(), c.Dump)
	return err
}

// kernels fetches the kernels named in args, all of them when none is, and with
// -vmlinux before the names also the x86_64 ones' debug information.
func kernels(ctx context.Context, args []string, out io.Writer) error {
	f := flag.NewFlagSet("kernels", flag.ContinueOnError)
	withVmlinux := f.Bool("vmlinux", false, "fetch vmlinux with debug information too")
	if err := f.Parse(args); err != nil {
		return errUsage
	}
	names := f.Args()
	if len(names) == 0 {
		names = lab.KernelNames()
	}
	for _, name := range names {
		if err := kernel(ctx, name, *withVmlinux, out); err != nil {
			return err
		}
	}
	return nil
}

func kernel(ctx context.Context, name string, withVmlinux bool, out io.Writer) error {
	k, err := lab.GetKernel(ctx, name)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "%-12s %s %s\n", name, k.Image, k.ModulesDir); err != nil {
		return err
	}
	if !withVmlinux || k.Arch != "amd64" {
		return nil
	}
	path, err := k.Vmlinux(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%-12s %s\n", "", path)
	return err
}

// printText makes a sink for the results of a judge: what it said is printed
// even when it failed.
func printText(out io.Writer) func(string, error) error {
	return func(text string, err error) error {
		_, printErr := io.WriteString(out, text)
		return errors.Join(err, printErr)
	}
}

func readAll(ctx context.Context, dump string, out io.Writer) error {
	pages, err := lab.ReadAllPages(ctx, dump)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "pages %d\nsha256 %s\n", pages.Count, pages.SHA256)
	return err
}
