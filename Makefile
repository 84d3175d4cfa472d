# Targets install what they lack; Go itself must be there.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GUEST   := $(CURDIR)/e2e/guest/run

# A pipe fails when any of its parts does.
SHELL       := /bin/bash
.SHELLFLAGS := -o pipefail -c

# Tests of one target: make kernel RUN=TestConformance
RUN     ?=
SELECT  := $(if $(RUN),-run '$(RUN)' -v)

STATICCHECK := go tool -modfile=tools/staticcheck/go.mod staticcheck
GOFUMPT     := go tool -modfile=tools/gofumpt/go.mod gofumpt
BENCHSTAT   := go tool -modfile=tools/benchstat/go.mod benchstat

# The tests on a real kernel fail, rather than skip, when there is none.
on-kernel = CGO_ENABLED=0 IPVS_HA_REAL_KERNEL=required go test -count=1 -p 1 $(SELECT)

on-lab    = IPVS_HA_BIN=$(CURDIR)/bin/ipvs-ha $(on-kernel)
# What is compared with keepalived needs its binary, in the guest too.
with-keepalived = e2e/guest/install keepalived:keepalived && IPVS_HA_KEEPALIVED=$$(PATH=$$PATH:/usr/sbin command -v keepalived) && export IPVS_HA_KEEPALIVED
lab-files = --file $(CURDIR)/bin/ipvs-ha --file $(CURDIR)/e2e/demo

# What the machine is, beside figures.
host = $$(sed -n 's/^model name.*: //p' /proc/cpuinfo | sort | uniq -c | sed 's/^ *//; s/ / x /')

.NOTPARALLEL:
.PHONY: help build demo test lint unit kernel e2e bench bench-failover bench-vips bench-order bench-agent steady campaign guest fmt clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' Makefile

build: ## bin/ipvs-ha, static
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)" -o bin/ipvs-ha ./cmd/ipvs-ha

demo: build guest ## three directors on a real kernel, from bootstrap to failover
	$(GUEST) --file bin/ipvs-ha --file e2e/demo -- e2e/demo

test: lint unit kernel e2e ## everything below
	@echo "passed: lint, unit, kernel, e2e"

lint: ## go vet, staticcheck, gofumpt
	go vet ./...
	$(STATICCHECK) ./...
	go -C bench vet ./...
	@files=$$($(GOFUMPT) -l .); [ -z "$$files" ] || { echo "not formatted (make fmt):" $$files; exit 1; }

unit: ## all tests that need no privilege, with the race detector
	@command -v gcc >/dev/null || e2e/guest/install
	CGO_ENABLED=1 go test -race $(SELECT) ./...
	$(if $(RUN),,$(MAKE) --no-print-directory steady MINUTES=1)

kernel: guest ## the conformance suite, the converge loop and the VIPs on a real kernel
	$(on-kernel) -timeout 10m -exec '$(GUEST) --timeout 600 --' ./kernel/... ./reconcile ./vip ./track

e2e: build guest ## whole clusters on a real kernel
	$(on-lab) -parallel 2 -timeout 18m -exec '$(GUEST) --guest --timeout 1100 $(lab-files) --' ./e2e
	IPVS_HA_WITHOUT=mh $(on-lab) -timeout 5m -run TestMissingScheduler -exec '$(GUEST) --timeout 300 $(lab-files) --without ip_vs_mh --' ./e2e

# Compared is what means the same on any machine. On the machine of the stored figures the times do too:
# go tool -modfile=tools/benchstat/go.mod benchstat -table pkg -ignore .config,/gomaxprocs bench/stored.txt bench/new.txt
# One round after the other, so that what else the machine does for a while strikes one run of each.
COUNT ?= 6
bench: guest ## package kernel against a bare netlink loop, other libraries and ipvsadm, and all that against stored figures
	@printf 'date: %s\ncommit: %s\nhost: %s\n' "$$(LC_ALL=C date -u '+%-d %B %Y')" '$(VERSION)' "$(host)" >bench/new.txt
	go test -run '^$$' -bench . -benchtime 0.2s -count $(COUNT) ./kernel ./reconcile | tee -a bench/new.txt
	for i in $$(seq $(COUNT)); do \
		CGO_ENABLED=0 go -C bench test -count 1 -run '^$$' -bench . -benchtime 1x -timeout 10m -exec '$(GUEST) --timeout 600 --' . || exit; \
	done | tee -a bench/new.txt
	@$(BENCHSTAT) -table pkg -ignore .config,/gomaxprocs -filter '.unit:(x-raw OR B/op OR allocs/op)' stored=bench/stored.txt new=bench/new.txt

# The machine should have nothing else to do. Runs of each event: make bench-failover RUNS=3
# One event, with _ for a space: make bench-failover EVENT=lan/rolling_restart
RUNS  ?= 10
EVENT ?=
bench-failover: build ## ipvs-ha beside keepalived, in half an hour at most; prints a table
	$(with-keepalived) && \
	IPVS_HA_BENCH_COMMAND='make bench-failover RUNS=$(RUNS)$(if $(EVENT), EVENT=$(EVENT))' IPVS_HA_BENCH_HOST="$(host)" \
	$(on-lab) -run '^$$' -bench 'BenchmarkFailover$(if $(EVENT),/$(EVENT))' -benchtime $(RUNS)x -timeout 30m \
		-exec "$(GUEST) --timeout 1800 $(lab-files) --file $$IPVS_HA_KEEPALIVED --" ./e2e

bench-vips: RUNS = 5
bench-vips: build ## 300 addresses that move, with ipvs-ha and with keepalived; prints a table
	$(with-keepalived) && \
	IPVS_HA_BENCH_COMMAND='make bench-vips RUNS=$(RUNS)' IPVS_HA_BENCH_HOST="$(host)" \
	$(on-lab) -run '^$$' -bench BenchmarkManyVIPs -benchtime $(RUNS)x -timeout 20m \
		-exec "$(GUEST) --timeout 1200 $(lab-files) --file $$IPVS_HA_KEEPALIVED --" ./e2e

bench-order: guest ## what a planned move loses, by the order of the sync daemons
	$(on-lab) -run '^$$' -bench BenchmarkOrderOfDaemons -benchtime 4x -timeout 15m -exec '$(GUEST) --timeout 900 $(lab-files) --' ./e2e

steady: MINUTES = 5
steady: ## 200 changes a second for MINUTES, through all of three agents on this machine
	IPVS_HA_STEADY=$(MINUTES)m go test -count=1 -v -run TestSteadyWrites ./agent | grep -v level=

# One of its parts, changes, large or writes: make bench-agent PART=writes
PART ?=
MINUTES ?= 1
bench-agent: build guest ## whole agents: changes, a large table, memory, steady writes for MINUTES; prints a table
	$(with-keepalived) && \
	IPVS_HA_BENCH_COMMAND='make bench-agent$(if $(PART), PART=$(PART)) MINUTES=$(MINUTES)' IPVS_HA_BENCH_HOST="$(host)" \
	IPVS_HA_MINUTES=$(MINUTES) $(on-lab) -v -run '^$$' -bench 'BenchmarkAgent$(if $(PART),/$(PART))' -benchtime 1x -timeout 20m \
		-exec "$(GUEST) --mem 3072 --timeout 1200 $(lab-files) --file $$IPVS_HA_KEEPALIVED --" ./e2e

campaign: RUNS = 50
campaign: build ## every fault RUNS times, in nearly an hour; prints a table
	$(with-keepalived) && \
	IPVS_HA_BENCH_COMMAND='make campaign RUNS=$(RUNS)' IPVS_HA_BENCH_HOST="$(host)" \
	IPVS_HA_RUNS=$(RUNS) $(on-lab) -v -parallel 4 -timeout 2h $(if $(RUN),,-run 'TestOneOwner|TestProbeSeesTwoOwners|TestNoNeedlessMove') \
		-exec "$(GUEST) --guest --timeout 7200 $(lab-files) --file $$IPVS_HA_KEEPALIVED --" ./e2e

guest: ## what the tests need from the distribution
	e2e/guest/install

fmt: ## format the Go files
	$(GOFUMPT) -w .

clean: ## remove what was built, the guest's image too
	rm -rf bin .guest
