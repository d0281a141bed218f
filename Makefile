# Berth's build. `make help` lists the targets.
#
# Everything is built below build/, laid out as it is installed:
#   bin/berth  libexec/berth/{berth-create,berth-join,berth-ready,berth-verify}  lib/berth/spank_berth.so  lib/berth/pbs/

# The plugin is built for PREFIX, so give it to `make build` too, or to
# `make install`, which builds again for it.
PREFIX  ?= /usr/local
DESTDIR ?=
BUILD   := $(CURDIR)/build
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GO      ?= go
BUILDFLAGS := -trimpath -buildvcs=false
LDFLAGS := -s -w -X main.version=$(VERSION)

.PHONY: help all build plugins deps test demo bench bench-compare soak race fuzz lint install pbs-install pbs-uninstall clean
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

all: build
build: ## build the programs and the Slurm plugin
	$(GO) build $(BUILDFLAGS) -ldflags '$(LDFLAGS)' -o $(BUILD)/bin/berth ./cmd/berth
	$(GO) build $(BUILDFLAGS) -ldflags '$(LDFLAGS)' -o $(BUILD)/libexec/berth/berth-create ./cmd/berth-create
	$(GO) build $(BUILDFLAGS) -ldflags '$(LDFLAGS)' -o $(BUILD)/libexec/berth/berth-verify ./cmd/berth-verify
	install -D -m 0644 pbs/berth_hook.py $(BUILD)/lib/berth/pbs/berth_hook.py
	install -m 0755 pbs/setup pbs/prologue pbs/epilogue $(BUILD)/lib/berth/pbs
	$(MAKE) -s -C launcher/join BUILD=$(BUILD)
	$(MAKE) -s -C spank/client BUILD=$(BUILD)
	$(MAKE) -s -C spank BUILD=$(BUILD) BINDIR=$(PREFIX)/bin LIBEXEC=$(PREFIX)/libexec/berth

plugins: ## build the plugin for each Slurm release whose headers are in SLURM_INCLUDES
	spank/releases $(BUILD)/lib/berth $(PREFIX) $(SLURM_INCLUDES)

deps: ## install what building and testing need (Debian, as root or with sudo)
	tools/deps

test: deps build ## run every test; what needs root is skipped without it, with a line
	tools/test

demo: deps build ## a 3-node Slurm cluster runs a bioinformatics job array in an image
	testdata/demo/demo

bench: deps build ## measure: one report in build/bench; see docs/benchmarks.md
	tools/deps bench
	testdata/bench/bench $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS))

bench-compare: deps build ## measure BASE=REVISION and this tree in turns, and compare by benchstat
	testdata/bench/bench compare $(or $(BASE),$(error which revision? make bench-compare BASE=v0.1)) $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS))

soak: deps build ## two minutes of jobs while what they depend on breaks; see docs/testing.md
	go test ./testdata/soak -count=1 -v -timeout 20m -soak 2m

fuzz: deps ## every fuzz target for FUZZTIME (60s) each; see docs/testing.md
	tools/fuzz

race: deps ## tests with Go's race detector, all that goes with it; CI runs some of them
	tools/race all

lint: ## golangci-lint, shellcheck, clang-tidy
	tools/lint

install: build ## install below DESTDIR/PREFIX
	install -D -m 0755 $(BUILD)/bin/berth $(DESTDIR)$(PREFIX)/bin/berth
	install -D -m 0755 $(BUILD)/libexec/berth/berth-create $(DESTDIR)$(PREFIX)/libexec/berth/berth-create
	install -D -m 0755 $(BUILD)/libexec/berth/berth-verify $(DESTDIR)$(PREFIX)/libexec/berth/berth-verify
	install -D -m 0755 $(BUILD)/libexec/berth/berth-join $(DESTDIR)$(PREFIX)/libexec/berth/berth-join
	install -D -m 0755 $(BUILD)/libexec/berth/berth-ready $(DESTDIR)$(PREFIX)/libexec/berth/berth-ready
	install -D -m 0755 $(BUILD)/libexec/berth/slurm/berth-slurm $(DESTDIR)$(PREFIX)/libexec/berth/slurm/berth-slurm
	cp -P $(BUILD)/libexec/berth/slurm/s* $(DESTDIR)$(PREFIX)/libexec/berth/slurm/
	install -D -m 0755 $(BUILD)/lib/berth/spank_berth.so $(DESTDIR)$(PREFIX)/lib/berth/spank_berth.so
	install -d $(DESTDIR)$(PREFIX)/lib/berth/pbs
	install -m 0644 $(BUILD)/lib/berth/pbs/berth_hook.py $(DESTDIR)$(PREFIX)/lib/berth/pbs/berth_hook.py
	install -m 0755 $(BUILD)/lib/berth/pbs/setup $(BUILD)/lib/berth/pbs/prologue $(BUILD)/lib/berth/pbs/epilogue $(DESTDIR)$(PREFIX)/lib/berth/pbs

packages: ## deb and rpm below build/packages; SLURM_INCLUDES has a folder of headers for each release of Slurm
	packaging/build $(BUILD)/packages $(VERSION) $(or $(SLURM_INCLUDES),$(if $(wildcard /usr/include/slurm/spank.h),/usr/include))

pbs-install: install ## install, and make the hook and resources in the PBS server of this host
	$(DESTDIR)$(PREFIX)/lib/berth/pbs/setup install $(PREFIX)

pbs-uninstall: ## remove the hook and resources from the PBS server of this host
	pbs/setup uninstall

clean: ## remove what was built
	rm -rf $(BUILD)
