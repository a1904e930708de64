# corehaul: `make demo` shows the main job on a real panic, `make test` runs every test.
# Both install what they need from Debian's packages and the Go module proxy.

export CGO_ENABLED = 0
# The cache of builds then serves a clone at any path: without it, each package of ours has its path in what is compiled.
export GOFLAGS := $(filter-out -trimpath,$(shell go env GOFLAGS)) -trimpath
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X github.com/corehaul/corehaul/cmd/internal/cli.version=$(VERSION)
# 'go tool' is asked for the program's path only: when a signal kills a tool, such as for want of memory, it exits with 0 itself.
LINT    = "$$(go tool -modfile=$(CURDIR)/tools/go.mod -n golangci-lint)"

# The product and the lab (e2e) are two modules; commands of go and the linter see one at a time.

# Packages that share memory between goroutines run under the race detector. It checks all that a plain run of theirs
# would, unless a test asks internal/race whether it is there, to take longer strides or not to count allocations: `make
# test` runs those packages plainly too (PLAIN), the others of RACE once. Programs that tests build are static in either run.
RACE   = ./crashtree/... ./dumpcopy/... ./dumpdir/... ./export/... ./intake/... ./protocol/... ./receiver/... ./sender/... ./storage/... ./triage/cage/... ./vmcore/...
RACED  = $(shell go list $(RACE))
ASKING = $(shell go list -f '{{.ImportPath}} {{.TestImports}} {{.XTestImports}}' ./... | grep internal/race | cut -d' ' -f1)
# The detector looks at no memory of SQLite, which has an allocator of its own, but costs each call in its C code as Go code.
# Its driver and what the driver copies are looked at.
RACE_FLAGS = -race -gcflags=modernc.org/sqlite/lib=-race=false -timeout=30m
PLAIN  = $(filter-out $(filter-out $(ASKING),$(RACED)),$(shell go list ./...))

# Tests live in little memory: with garbage collected less often, those of dumpdir take a seventh less CPU time.
GC = GOGC=400

# More tests of the lab than CPUs at a time, because many of them wait.
E2E = -count=1 -timeout=75m -parallel=4 ./...

# What the phases of `make test` took; see docs/testing.md.
TIMES = $(CURDIR)/bin/times.jsonl
TIMED = $(CURDIR)/bin/timed -to $(TIMES)

# What `make bench` measured, more flags for it, and the packages whose benchmarks it compares with those of bin/bench-old.txt. Copy
# bin/bench-new.txt there before a change.
REPORT = $(CURDIR)/bin/bench.json
BENCH  =
PARTS  = ./dumpdir ./kernel/pages ./protocol ./sender ./vmcore/...

.PHONY: all build packages check unit lint fmt race stress test test-fast test-lab test-captures times e2e mutations demo bench bench-full bench-page fuzz deps clean

all: build

build: ## both programs, static, into bin/
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/corehaul ./cmd/corehaul
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/corehaul-send ./cmd/corehaul-send

packages: ## .deb and .rpm of both programs, into bin/packages
	rm -rf bin/packages
	packaging/build.sh bin/packages

check: unit lint ## what to run all the time: unit tests, fuzz seeds, vet, lint

unit:
	$(GC) go test ./...

lint:
	$(LINT) run --allow-parallel-runners ./...
	cd e2e && $(LINT) run --allow-parallel-runners ./...

fmt: ## rewrites what the linter says of formatting
	$(LINT) fmt ./...
	cd e2e && $(LINT) fmt ./...

race: deps ## the race detector needs a C compiler, the product does not
	$(GC) CGO_ENABLED=1 go test $(RACE_FLAGS) $(RACE)

deps: ## the programs that tests and demo drive: QEMU, kexec, crash's libraries...
	e2e/install.sh

stress: deps ## the unit tests STRESS_COUNT times under the race detector, beside two busy loops
	./stress.sh $(or $(STRESS_COUNT),20)

# The lab waits for lines, guests and time limits a good part of its time: the unit tests run beside it.
test: deps build packages bin/timed ## everything; ends with what took longest
	rm -f $(TIMES)
	$(MAKE) --no-print-directory --jobs=3 test-lab test-fast test-captures; code=$$?; bin/timed -report $(TIMES); exit $$code

test-fast: bin/timed
	$(GC) $(TIMED) unit go test -json $(PLAIN)
	$(TIMED) lint $(LINT) run --allow-parallel-runners ./...
	cd e2e && $(TIMED) "lint e2e" $(LINT) run --allow-parallel-runners ./...
	$(GC) CGO_ENABLED=1 $(TIMED) race go test -json $(RACE_FLAGS) $(RACE)

test-lab: bin/timed
	$(TIMED) e2e go -C e2e test -json $(E2E)

# So that dumps are there when tests ask for them. The tests make what is missing, and tell why it cannot be made.
test-captures: bin/timed
	-$(TIMED) captures go -C e2e run ./cmd/lab matrix
	-$(TIMED) panics go -C e2e run ./cmd/lab panics

times: bin/timed ## puts what the last `make test` took into docs/testing.md
	bin/timed -report $(TIMES) -doc docs/testing.md

bin/timed: $(wildcard e2e/cmd/timed/*.go)
	go -C e2e build -o $(CURDIR)/bin/timed ./cmd/timed

e2e: deps build packages
	go -C e2e test $(E2E)

mutations: deps build ## every command on every changed dump, and more damaged memory; make e2e runs a part of it
	COREHAUL_MUTATIONS=all go -C e2e test -count=1 -timeout=75m -run='TestMutations|TestTriageOfDamage' .

demo: deps build ## a kernel panics, its dump arrives over TLS and says what crashed
	e2e/demo.sh

# Whole dumps first, then what they consist of: scan, encode, checksum, transport, writer.
bench: deps build bin/bench ## speed of whole dumps beside peers, as ratios, and of their parts; up to 20 minutes on a quiet machine
	bin/bench -bin bin -json $(REPORT) $(BENCH)
	go test -run='^$$' -bench=. -benchmem -benchtime=200ms -count=6 $(PARTS) >bin/bench-new.txt || { cat bin/bench-new.txt; exit 1; }
	"$$(go tool -modfile=$(CURDIR)/tools/go.mod -n benchstat)" $(wildcard bin/bench-old.txt) bin/bench-new.txt

bench-full: deps build bin/bench ## every link, dump, level and method, and every benchmark; hours
	bin/bench -bin bin -full -json $(REPORT) $(BENCH)
	go test -run='^$$' -bench=. -benchmem ./...
	go -C e2e test -run='^$$' -bench=. -benchmem -timeout=2h ./...

bench-page: bin/bench ## puts what the last `make bench` measured into docs/performance.md and its picture
	bin/bench -report $(REPORT) -doc docs/performance.md -chart docs/performance.svg

bin/bench: $(wildcard e2e/bench/*.go e2e/cmd/bench/*.go e2e/lab/*.go)
	go -C e2e build -o $(CURDIR)/bin/bench ./cmd/bench

fuzz: ## every fuzz target for FUZZTIME each
	./fuzz.sh $(or $(FUZZTIME),30s)

clean:
	rm -rf bin
