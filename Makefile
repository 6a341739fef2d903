# Builds, tests and checks every module of this repository.
# "make help" lists the targets.

.DEFAULT_GOAL := help

# The directories with a go.mod.
MODULES := $(patsubst %/go.mod,%,$(shell find . -name go.mod -not -path '*/.*/*'))

# The systems that the code and its tests must compile for.
SYSTEMS := \
	linux/amd64 linux/386 linux/arm linux/arm64 linux/s390x \
	darwin/arm64 windows/amd64 windows/386 \
	freebsd/amd64 openbsd/amd64 netbsd/amd64 dragonfly/amd64 \
	illumos/amd64 solaris/amd64 aix/ppc64

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# How often "make fuzz" calls each fuzz target. This is a count because "go
# test" sometimes fails at the end of a fuzzing time (go.dev/issue/75804).
FUZZTIME := 10000x

# How long "make proof" records histories.
PROOFTIME := 1m

# With the race detector, a process sleeps for a second before it exits. The
# tests start many processes.
export GORACE := atexit_sleep_ms=0

.PHONY: help test test-arch test-fs test-nfs test-windows bench-windows vet staticcheck bench fuzz docs proof all

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 16

# INTERLOCK_LONG=1 asks for tests of full length. "go test" alone, and the other
# targets below, run short versions unless it is set.
test: export INTERLOCK_LONG ?= 1
test: ## Run all tests at full length, with the race detector
	@set -e; for m in $(MODULES); do \
		echo "test $$m"; \
		(cd $$m && go test -vet=off -race -timeout 20m ./...); \
	done
	@# The core again, with fewer features of Linux: on file systems that are
	@# not local, without waits in the kernel, and with the code for other Unix
	@# systems. TestFaults covers the first two itself. The cache of test
	@# results does not see INTERLOCK_TEST. systemtest is for Linux alone.
	INTERLOCK_TEST=remote go test -vet=off -race -count=1 -timeout 20m -skip '^TestFaults$$' .
	INTERLOCK_TEST=poll go test -vet=off -race -count=1 -timeout 20m -skip '^TestFaults$$' .
	go test -tags interlock_bsd -vet=off -race -timeout 20m -skip '^TestBrokenLocksAreCaught$$' \
		$$(go list ./... | grep -v systemtest)

test-arch: ## Run the tests on s390x, arm, arm64 and 386 (Debian, root)
	.ci/test-arch

test-fs: ## Run the tests on six file systems (Debian, root)
	.ci/test-fs

test-nfs: ## Run the tests on NFS v3, v4.0 and v4.2, with two clients (Debian, root)
	.ci/nfs

# TestBrokenLocksAreCaught depends on the timing of processes, which Wine changes.
test-windows: ## Run the tour and the tests for Windows under Wine (Debian, root)
	.ci/wine go run ./examples/tour
	.ci/wine go test -vet=off -count=1 -timeout 20m -skip '^TestBrokenLocksAreCaught$$' ./...

bench-windows: ## Run the benchmarks for Windows under Wine (Debian, root)
	.ci/wine go test -vet=off -run '^$$' -bench . -benchtime 1x .

# The module proof is for Linux only, and its dependencies take long to compile.
vet: ## Check the format, and run go vet for every system
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	@set -e; for m in $(MODULES); do for s in $(SYSTEMS); do \
		case $$m:$$s in ./proof:linux/amd64) ;; ./proof:*) continue ;; esac; \
		echo "vet $$m for $$s"; \
		(cd $$m && GOOS=$${s%/*} GOARCH=$${s#*/} CGO_ENABLED=0 go vet ./...); \
	done; done
	go vet -tags interlock_bsd ./...

staticcheck: ## Run staticcheck for Linux and Windows
	@GOBIN=$(CURDIR)/.bin go install $(STATICCHECK)
	@set -e; for m in $(MODULES); do for s in linux windows; do \
		case $$m:$$s in ./proof:windows) continue ;; esac; \
		echo "staticcheck $$m for $$s"; \
		(cd $$m && GOOS=$$s $(CURDIR)/.bin/staticcheck ./...); \
	done; done
	$(CURDIR)/.bin/staticcheck -tags interlock_bsd ./...

bench: ## Run the benchmarks once; some fail if they miss their limit
	go test -vet=off -run '^$$' -bench . -benchtime 1x -timeout 20m .

fuzz: ## Run each fuzz target for FUZZTIME calls
	@set -e; for m in $(MODULES); do \
		cd $(CURDIR)/$$m; \
		for p in $$(go list ./...); do \
			for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz'); do \
				go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$p; \
			done; \
		done; \
	done

docs: ## Check the Markdown files, and the names of tests that are mentioned
	go test -vet=off -count=1 ./internal/doccheck
	@# A test that is skipped or mentioned by its name may be renamed.
	@for t in $$(grep -ohE '\bTest[A-Z][A-Za-z0-9]*' Makefile .ci/* *.md docs/*.md --exclude=CHANGELOG.md | sort -u); do \
		grep -rqE --include='*.go' "^func $$t|^//	func $$t" . || { echo "no test is named $$t"; code=1; }; \
	done; exit $${code:-0}

proof: ## Check histories of killed processes for PROOFTIME
	cd proof && go test -vet=off -count=1 -timeout 0 -run '^TestLinearizable$$' -v . -proof.time $(PROOFTIME)

all: ## Run everything that must pass before a change lands (Debian, root)
	.ci/run
