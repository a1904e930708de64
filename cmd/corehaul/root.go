package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/corehaul/corehaul/cmd/internal/cli"
	"github.com/corehaul/corehaul/dumpdir"
	"github.com/corehaul/corehaul/storage"
	"github.com/corehaul/corehaul/storage/groups"
	"github.com/corehaul/corehaul/storage/stores"
)

// defaultData is where dumps are kept.
const defaultData = "/var/lib/corehaul"

// app is what all commands share: the streams and common flags.
type app struct {
	stdio cli.Stdio
	data  string // path or URL of the store
	json  bool
	known *groups.Groups // of the store; nil until a command needs them
}

const rootLong = `corehaul receives the memory dumps of crashed Linux machines, stores them as
standard vmcore files, and lists, verifies and exports them.

Commands accept as a dump (ID): its id, a unique beginning of the id, HOST/ID, the name of
its directory, a HOST for its newest dump, "latest" for the newest dump of all, the path of
a dump directory or of a file in it, or the path of a vmcore (ELF, kdump-compressed or
flattened). 'corehaul help forms' lists how sizes, durations and times are written.`

// newRoot returns the command tree.
func newRoot(stdio cli.Stdio) *cobra.Command {
	a := &app{stdio: stdio}
	root := &cobra.Command{Use: "corehaul", Short: "Receive and keep kernel dumps", Long: rootLong, Version: cli.Version()}
	root.AddGroup(
		&cobra.Group{ID: groupDumps, Title: "Dumps:"},
		&cobra.Group{ID: groupTriage, Title: "What crashed:"},
		&cobra.Group{ID: groupServer, Title: "Receiving:"})
	root.AddCommand(
		newLs(a), newShow(a), newLog(a), newVerify(a), newExport(a), newPin(a), newUnpin(a), newRm(a), newPrune(a), newReindex(a), newImport(a),
		newGroups(a), newGroup(a), newReport(a), newBt(a), newPs(a), newMods(a), newSys(a), newCrash(a), newDrgn(a),
		newServe(a), newReceive(a), newStatus(a), newReload(a), newCA(a), newKnownHosts(a), newVersion(a), newTriageChild(), formsTopic())
	cli.WarnOfSpelling(root)
	return root
}

const (
	groupDumps  = "dumps"
	groupTriage = "triage"
	groupServer = "server"
)

// dataFlag and jsonFlag add the flags that most commands have.
func (a *app) dataFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.data, "data", defaultData, dataUsage)
}

const dataUsage = "directory of the dumps, or URL of the store"

func (a *app) jsonFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.json, "json", false, "print JSON (see docs/json.md)")
}

// open opens the store. Only "serve" and "import" create a missing one.
func (a *app) open(ctx context.Context, opts storage.OpenOptions) (storage.Store, error) {
	store, err := stores.Open(ctx, a.data, opts)
	if errors.Is(err, fs.ErrNotExist) {
		if at, ok := errors.AsType[*fs.PathError](err); ok {
			err = at
		}
		return nil, cli.WithHint(fmt.Errorf("no dumps are stored in %s: %w", a.data, err), "--data DIR or $COREHAUL_DATA says where the dumps are")
	}
	return store, err
}

// target is the argument of a command: a dump of the store, the path of a dump directory, or a file.
type target struct {
	store storage.Store // nil for a path
	entry storage.Entry // of the dump in the store
	path  string        // as given
	dir   string        // dump directory of path; empty for other files
	file  string        // name in dir; empty for the directory itself
}

// isDump reports whether the target is a stored dump, and not a file of its own.
func (t *target) isDump() bool { return t.store != nil || t.dir != "" }

// close closes the store.
func (t *target) close() error {
	if t.store == nil {
		return nil
	}
	return t.store.Close()
}

// name is the target's name in messages.
func (t *target) name() string {
	if t.store == nil {
		return t.path
	}
	return t.entry.String()
}

// find resolves an argument. A name that begins like a path is a path. Another name is looked up in the store first.
func (a *app) find(ctx context.Context, arg string) (*target, error) {
	if strings.HasPrefix(arg, "/") || strings.HasPrefix(arg, "./") || strings.HasPrefix(arg, "../") {
		return a.findFile(arg)
	}
	t, err := a.findDump(ctx, arg)
	if err == nil {
		return t, nil
	}
	var several *storage.AmbiguousError
	if file, fileErr := a.findFile(arg); fileErr == nil && !errors.As(err, &several) {
		return file, nil
	}
	if errors.Is(err, storage.ErrNotFound) && !errors.As(err, &several) {
		err = fmt.Errorf("%w, and no file of that name", err)
	}
	return nil, noSuchDump(err)
}

// noSuchDump adds a hint if an error of Find says that no dump has the name.
func noSuchDump(err error) error {
	var several *storage.AmbiguousError
	if errors.Is(err, storage.ErrNotFound) && !errors.As(err, &several) {
		return cli.WithHint(err, "'corehaul ls' lists the dumps")
	}
	return err
}

func (a *app) findFile(path string) (*target, error) {
	if dir, file, ok := dumpdir.AtPath(path); ok {
		return &target{path: path, dir: dir, file: file}, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, cli.WithHint(fmt.Errorf("%s is a directory", path), "name the vmcore file in it")
	}
	return &target{path: path}, nil
}

func (a *app) findDump(ctx context.Context, name string) (*target, error) {
	store, err := a.open(ctx, storage.OpenOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	entry, err := storage.FindNamed(ctx, store, name)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &target{store: store, entry: entry}, nil
}

// dump opens the dump of a target.
func (t *target) dump(ctx context.Context) (*dumpdir.Dump, error) {
	if t.store == nil {
		return dumpdir.Open(dumpdir.OS{}, t.dir)
	}
	return t.store.Open(ctx, t.entry.Ref)
}

// withTarget runs f on the target of an argument.
func (a *app) withTarget(ctx context.Context, arg string, f func(*target) error) error {
	t, err := a.find(ctx, arg)
	if err != nil {
		return err
	}
	return errors.Join(f(t), t.close())
}

// completeDump completes the ids of dumps for the shell.
func (a *app) completeDump(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	store, err := a.open(cmd.Context(), storage.OpenOptions{ReadOnly: true})
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	defer func() { _ = store.Close() }() // only read
	entries, err := store.List(cmd.Context(), storage.Filter{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var ids, hosts, seen []string
	for _, e := range entries {
		about := cli.Printable(e.Host + " " + e.Headline())
		if strings.HasPrefix(e.ID, prefix) {
			ids = append(ids, e.ID+"\t"+about)
		}
		if host := e.Host + "\tnewest dump: " + about; strings.HasPrefix(e.Host, prefix) && !slices.Contains(seen, e.Host) {
			hosts, seen = append(hosts, host), append(seen, e.Host)
		}
	}
	if strings.HasPrefix(storage.Latest, prefix) && len(entries) > 0 {
		hosts = append(hosts, storage.Latest+"\tnewest dump of all")
	}
	return append(ids, hosts...), cobra.ShellCompDirectiveDefault
}
