# corehaul: `make demo` shows the main job on a real panic, `make test` runs every test.
# Both install what they need from Debian's packages and the Go module proxy.

export CGO_ENABLED = 0
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X github.com/corehaul/corehaul/cmd/internal/cli.version=$(VERSION)
LINT    := go tool -modfile=$(CURDIR)/tools/go.mod golangci-lint

# The product and the lab (e2e) are two modules; commands of go and the linter see one at a time.
# Packages that share memory between goroutines:
RACE = ./dumpdir/... ./protocol/... ./receiver/... ./sender/... ./storage/... ./vmcore/...

.PHONY: all build check unit lint fmt race test e2e demo bench fuzz deps clean

all: build

build: ## both programs, static, into bin/
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/corehaul ./cmd/corehaul
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/corehaul-send ./cmd/corehaul-send

check: unit lint ## what to run all the time: unit tests, fuzz seeds, vet, lint

unit:
	go test ./...

lint:
	$(LINT) run ./...
	cd e2e && $(LINT) run ./...

fmt: ## rewrites what the linter says of formatting
	$(LINT) fmt ./...
	cd e2e && $(LINT) fmt ./...

race: deps ## the race detector needs a C compiler, the product does not
	CGO_ENABLED=1 go test -race -timeout=30m $(RACE)

deps: ## the programs that tests and demo drive: QEMU, kexec, crash's libraries...
	e2e/install.sh

test: deps check race e2e ## everything

e2e: deps build
	go -C e2e test -count=1 -timeout=75m -parallel=4 ./...

demo: deps build ## a kernel panics, its dump arrives over TLS, its log is read
	e2e/demo.sh

bench: deps build ## speed, always beside a peer, as a ratio
	go test -run='^$$' -bench=. -benchmem ./...
	go -C e2e test -run='^$$' -bench=. -benchmem ./...

fuzz: ## every fuzz target for FUZZTIME each
	./fuzz.sh $(or $(FUZZTIME),30s)

clean:
	rm -rf bin
