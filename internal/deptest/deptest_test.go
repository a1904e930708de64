package deptest

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/corehaul/corehaul"

// forbidden lists, for the dependency tree of a package, what it must not contain and why. An entry that ends in a
// slash matches everything below it.
var forbidden = []struct {
	root string
	deps map[string]string
}{
	{"cmd/corehaul-send", map[string]string{
		"database/sql":                          "no SQL in a capture kernel",
		"modernc.org/":                          "no SQL in a capture kernel",
		"net/http":                              "no web code in a capture kernel",
		"golang.org/x/crypto/ssh/agent":         "the capture kernel has a key of its own; see also TestSenderServesNothing",
		"github.com/minio/":                     "no S3 in a capture kernel",
		"github.com/corehaul/corehaul/receiver": "sender and receiver meet on the wire only",
		"github.com/corehaul/corehaul/storage":  "no store in a capture kernel",
		"github.com/corehaul/corehaul/e2e/":     "the lab is for tests",
		"github.com/Shopify/toxiproxy/":         "bad lines are for tests",
		"testing":                               "product files import no test helpers",

		"github.com/corehaul/corehaul/kernel/types":     "the collecting host reads the dump, not the capture kernel",
		"github.com/corehaul/corehaul/kernel/percpu":    "the collecting host reads the dump, not the capture kernel",
		"github.com/corehaul/corehaul/kernel/tasks":     "the collecting host reads the dump, not the capture kernel",
		"github.com/corehaul/corehaul/kernel/modules":   "the collecting host reads the dump, not the capture kernel",
		"github.com/corehaul/corehaul/kernel/generated": "the collecting host reads the dump, not the capture kernel",
		"github.com/cilium/ebpf/":                       "the collecting host reads the dump, not the capture kernel",
		"github.com/corehaul/corehaul/kernel/oops":      "the collecting host reads the log, not the capture kernel",
		"github.com/corehaul/corehaul/kernel/kallsyms":  "the collecting host reads the dump, not the capture kernel",
		"github.com/corehaul/corehaul/triage":           "the collecting host reads the dump, not the capture kernel",
		"github.com/corehaul/corehaul/debuginfo":        "the collecting host reads the dump, not the capture kernel",
		"github.com/corehaul/corehaul/debuginfo/":       "the collecting host reads the dump, not the capture kernel",
		"github.com/hashicorp/go-retryablehttp":         "no web code in a capture kernel",
		"github.com/corehaul/corehaul/kernel/unwind":    "the collecting host reads the dump, not the capture kernel",
		"github.com/elastic/go-seccomp-bpf":             "the collecting host reads the dump, not the capture kernel",
		"github.com/landlock-lsm/go-landlock/landlock":  "the collecting host reads the dump, not the capture kernel",
	}},
	{"cmd/corehaul", map[string]string{
		"github.com/corehaul/corehaul/sender": "sender and receiver meet on the wire only",
		"github.com/corehaul/corehaul/e2e/":   "the lab is for tests",
		"github.com/Shopify/toxiproxy/":       "bad lines are for tests",
		"testing":                             "product files import no test helpers",
	}},
	{"kernel/...", map[string]string{
		"github.com/corehaul/corehaul/vmcore":   "kernel memory knows no dump format",
		"github.com/corehaul/corehaul/vmcore/":  "kernel memory knows no dump format",
		"github.com/corehaul/corehaul/protocol": "kernel memory knows no wire",
		"github.com/corehaul/corehaul/dumpdir":  "points upward",
	}},
	{"vmcore/...", map[string]string{
		"github.com/corehaul/corehaul/kernel":   "dump formats know no kernel memory",
		"github.com/corehaul/corehaul/kernel/":  "dump formats know no kernel memory",
		"github.com/corehaul/corehaul/protocol": "dump formats know no wire",
		"github.com/corehaul/corehaul/dumpdir":  "points upward",
	}},
	{"chunk", map[string]string{
		"github.com/corehaul/corehaul/vmcore":   "it is a leaf beside mem",
		"github.com/corehaul/corehaul/protocol": "it is a leaf beside mem",
		"github.com/corehaul/corehaul/dumpdir":  "it is a leaf beside mem",
	}},
	{"uts", map[string]string{
		"github.com/corehaul/corehaul/vmcore":   "it is a leaf beside mem",
		"github.com/corehaul/corehaul/kernel":   "it is a leaf beside mem",
		"github.com/corehaul/corehaul/protocol": "it is a leaf beside mem",
	}},
	{"internal/bytesize", map[string]string{
		"github.com/corehaul/corehaul/mem":                "it is a leaf",
		"github.com/corehaul/corehaul/internal/printable": "it is a leaf",
	}},
	{"machine", map[string]string{
		"github.com/corehaul/corehaul/protocol": "what a dump tells is no matter of the wire",
		"github.com/corehaul/corehaul/dumpdir":  "points upward",
		"github.com/corehaul/corehaul/storage":  "points upward",
	}},
	{"debuginfo/...", map[string]string{
		"github.com/corehaul/corehaul/kernel":  "it finds files; triage knows the kernel",
		"github.com/corehaul/corehaul/vmcore":  "it knows no dump",
		"github.com/corehaul/corehaul/dumpdir": "it knows no dump",
	}},
	{"debuginfo/symbolfile", map[string]string{
		"net": "it reads one file",
		"github.com/corehaul/corehaul/internal/plainfile": "it reads one file",
	}},
	{"triage", map[string]string{
		"net/http":                              "it is given the files with debugging information",
		"github.com/corehaul/corehaul/protocol": "it reads one dump from wherever it is",
		"github.com/corehaul/corehaul/dumpdir":  "it reads one dump from wherever it is",
		"github.com/corehaul/corehaul/storage":  "it reads one dump from wherever it is",
	}},
	{"triage/cage", map[string]string{
		"net":                                   "the program in the cage knows no network",
		"github.com/corehaul/corehaul/protocol": "it reads one dump directory",
		"github.com/corehaul/corehaul/intake":   "it reads one dump directory",
		"github.com/corehaul/corehaul/storage":  "it reads one dump directory",
		"github.com/corehaul/corehaul/receiver": "points upward",
	}},
	{"export", map[string]string{
		"github.com/corehaul/corehaul/protocol": "it writes the memory of one dump from wherever it is",
		"github.com/corehaul/corehaul/dumpdir":  "it writes the memory of one dump from wherever it is",
		"github.com/corehaul/corehaul/storage":  "points upward",
	}},
	{"protocol", map[string]string{
		"github.com/corehaul/corehaul/vmcore":  "the wire knows no dump format",
		"github.com/corehaul/corehaul/vmcore/": "the wire knows no dump format",
		"github.com/corehaul/corehaul/kernel":  "the wire knows no kernel memory",
		"github.com/corehaul/corehaul/dumpdir": "points upward",
	}},
	{"sender/disk", map[string]string{
		"github.com/corehaul/corehaul/protocol": "it knows disks, and no dump",
		"github.com/corehaul/corehaul/dumpdir":  "it knows disks, and no dump",
		"net":                                   "it knows disks, and no line",
	}},
	{"sender/hostnet", map[string]string{
		"github.com/corehaul/corehaul/protocol":       "it knows links, and no dump",
		"github.com/corehaul/corehaul/sender/initrd":  "it names devices; who packs finds their drivers",
		"github.com/corehaul/corehaul/sender/network": "it changes nothing",
	}},
	{"sender/network", map[string]string{
		"github.com/corehaul/corehaul/protocol": "it knows links, and no dump",
		"github.com/corehaul/corehaul/sender":   "points upward",
	}},
	{"sender/arm", map[string]string{
		"github.com/corehaul/corehaul/protocol":    "it knows the running machine, and no dump",
		"github.com/corehaul/corehaul/sender":      "the command brings the probe of a target",
		"github.com/corehaul/corehaul/sender/pid1": "it is what runs in the capture kernel",
	}},
	{"sender/arm/estimate", map[string]string{
		"github.com/corehaul/corehaul": "it is arithmetic, and knows no machine",
	}},
	{"sender/arm/kexec", map[string]string{
		"github.com/corehaul/corehaul/sender/initrd": "it knows the kernel, and no image",
		"net": "it knows the kernel, and no line",
	}},
	{"sender/arm/reservation", map[string]string{
		"github.com/corehaul/corehaul/sender/config": "it knows the kernel, and no configuration",
		"net": "it knows the kernel, and no line",
	}},
	{"sender/localfs", map[string]string{
		"github.com/corehaul/corehaul/protocol": "it is a file system, and knows no wire",
	}},
	{"hostname", map[string]string{
		"github.com/corehaul/corehaul/tls":     "points upward",
		"github.com/corehaul/corehaul/dumpdir": "points upward",
		"github.com/corehaul/corehaul/storage": "points upward",
	}},
	{"tls", map[string]string{
		"github.com/corehaul/corehaul/protocol": "identities know no wire",
	}},
	{"dumpdir", map[string]string{
		"github.com/corehaul/corehaul/kernel":   "a dump directory knows no kernel memory",
		"github.com/corehaul/corehaul/kernel/":  "a dump directory knows no kernel memory",
		"github.com/corehaul/corehaul/protocol": "a dump directory knows no wire",
		"github.com/corehaul/corehaul/storage":  "points upward",
	}},
	{"intake", map[string]string{
		"github.com/corehaul/corehaul/kernel":   "what comes over the wire is not looked into here",
		"github.com/corehaul/corehaul/storage":  "it serves one dump, wherever it is",
		"github.com/corehaul/corehaul/receiver": "points upward",
		"github.com/corehaul/corehaul/sender":   "points upward",
	}},
	{"dumpcopy", map[string]string{
		"github.com/corehaul/corehaul/storage":  "it copies one file, wherever the dump is",
		"github.com/corehaul/corehaul/intake":   "it copies one file, wherever the dump is",
		"github.com/corehaul/corehaul/receiver": "points upward",
		"github.com/corehaul/corehaul/sender":   "points upward",
	}},
	{"storage/...", map[string]string{
		"github.com/corehaul/corehaul/protocol": "the store knows no wire",
		"github.com/corehaul/corehaul/receiver": "points upward",
	}},
	{"receiver/...", map[string]string{
		"github.com/corehaul/corehaul/sender":  "sender and receiver meet on the wire only",
		"github.com/corehaul/corehaul/sender/": "sender and receiver meet on the wire only",
	}},
	{"crashtree", map[string]string{
		"github.com/corehaul/corehaul/receiver":              "it imports files; receiver/admission has the limits of space",
		"github.com/corehaul/corehaul/receiver/kdumpclients": "dumpcopy has what both share",
		"github.com/corehaul/corehaul/sender":                "sender and receiver meet on the wire only",
		"net/http":                                           "it imports files",
	}},
	{"depotcopy", map[string]string{
		"github.com/corehaul/corehaul/receiver":      "it copies files; receiver/admission has the limits of space",
		"github.com/corehaul/corehaul/crashtree":     "points upward",
		"github.com/corehaul/corehaul/sender":        "sender and receiver meet on the wire only",
		"github.com/corehaul/corehaul/storage/local": "it knows the interface of a store",
		"net/http": "it copies files",
	}},
	{"receiver/watch", map[string]string{
		"github.com/corehaul/corehaul/receiver":              "sessions and watched directories meet in the store",
		"github.com/corehaul/corehaul/receiver/kdumpclients": "crashtree has the files of kdump",
		"github.com/corehaul/corehaul/storage/local":         "it knows the interface of a store",
		"net/http": "it reads files",
	}},
	{"receiver/admission", map[string]string{
		"github.com/corehaul/corehaul/protocol": "admission knows no wire",
		"github.com/corehaul/corehaul/intake":   "admission knows no wire",
		"github.com/corehaul/corehaul/receiver": "points upward",
		"net":                                   "admission knows no connection",
	}},
	{"sender/...", map[string]string{
		"github.com/corehaul/corehaul/receiver": "sender and receiver meet on the wire only",
		"github.com/corehaul/corehaul/storage":  "no store in a capture kernel",
		"github.com/corehaul/corehaul/storage/": "no store in a capture kernel",
	}},
}

func TestImportsPointDownward(t *testing.T) {
	for _, tc := range forbidden {
		t.Run(tc.root, func(t *testing.T) {
			for _, dep := range deps(t, tc.root) {
				for bad, why := range tc.deps {
					if dep == bad || strings.HasSuffix(bad, "/") && strings.HasPrefix(dep, bad) {
						t.Errorf("%s reaches %s: %s", tc.root, dep, why)
					}
				}
			}
		})
	}
}

// testServers are modules of the lab. The lab has its own go.mod, so the product requires none of them.
var testServers = []string{"github.com/Shopify/toxiproxy", "github.com/rs/zerolog", "github.com/gorilla/mux", "github.com/prometheus/client_golang"}

func TestModuleRequiresNoTestServers(t *testing.T) {
	if own := requirements(t, "../../e2e"); !strings.Contains(own, testServers[0]) {
		t.Errorf("the lab does not require %s: this test looks at the wrong names", testServers[0])
	}
	product := requirements(t, "../..")
	for _, server := range testServers {
		if strings.Contains(product, server) {
			t.Errorf("the product's go.mod requires %s: it is for tests", server)
		}
	}
}

// requirements lists all modules that the module in dir requires.
func requirements(t *testing.T, dir string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-m", "all")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -m all in %s: %v", dir, err)
	}
	return string(out)
}

// deps lists all packages that the product files of root need.
func deps(t *testing.T, root string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", module+"/"+root)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v", root, err)
	}
	list := strings.Fields(string(out))
	if own := module + "/" + strings.TrimSuffix(root, "/..."); !slices.Contains(list, own) {
		t.Fatalf("go list -deps %s does not name %s", root, own)
	}
	return list
}

func TestEveryPackageIsDocumented(t *testing.T) {
	documented := map[string]bool{}
	for path := range goFiles(t) {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Dir(path)
		documented[dir] = documented[dir] || file.Doc != nil
	}
	if len(documented) < 10 {
		t.Fatalf("found only %d packages", len(documented))
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", strings.TrimPrefix(dir, "../../"))
		}
	}
}

// goFiles yields the paths of all Go files of the tree.
func goFiles(t *testing.T) func(yield func(string) bool) {
	t.Helper()
	return func(yield func(string) bool) {
		err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && (strings.HasPrefix(d.Name(), ".g") || d.Name() == "testdata") {
				return filepath.SkipDir
			}
			if strings.HasSuffix(path, ".go") && !yield(path) {
				return fs.SkipAll
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
