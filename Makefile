# The tests, checks and benchmarks of every module of this repository.

MODULES := $(patsubst %/go.mod,%,$(shell find . -name go.mod -not -path '*/.*/*'))
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# Every system the code must compile for, with its tests (but for linux/386 and arm64, where test-arch runs it); proof is for
# Linux, and its libraries take long to compile.
SYSTEMS := \
	linux/amd64 linux/arm linux/s390x \
	darwin/arm64 windows/amd64 windows/386 \
	freebsd/amd64 openbsd/amd64 netbsd/amd64 dragonfly/amd64 \
	illumos/amd64 solaris/amd64 aix/ppc64

# How often "make fuzz" calls each target: a number, since go test sometimes fails when a time is over (go.dev/issue/75804).
FUZZTIME := 10000x

# With the race detector a process waits a second before it ends, unless it is told not to; and here many end.
export GORACE := atexit_sleep_ms=0

# With SHORT=-short, without what takes long.
export SHORT ?=

# With RACE=, the modes of poorer systems are tested without the race detector.
RACE := -race

.PHONY: test test-arch test-fs test-nfs test-windows bench-windows vet staticcheck bench fuzz

test:
	@set -e; for m in $(MODULES); do (cd $$m && go test $(SHORT) -vet=off -race -timeout 10m ./...); done
	@# And as if the system were poorer than it is (rwmutex_linux_test.go), which the test cache does not see, and by
	@# the code for the other systems that have flock(2) (sys_bsd.go). At once, since they sleep a lot.
	printf '%s\n' \
		'INTERLOCK_TEST=remote go test . $(RACE) -skip ^TestFaults$$' \
		'INTERLOCK_TEST=poll go test . $(RACE) -skip ^TestFaults$$' \
		'go test . ./locktest -tags interlock_bsd $(RACE) -skip TestBrokenLocksAreCaught' \
		'go test ./lockedfile ./pidfile -tags interlock_bsd' | \
		xargs -P 4 -I {} sh -c 'env {} $(SHORT) -vet=off -count=1 -timeout 10m'

test-arch:
	SHORT=$(SHORT) .ci/test-arch

test-fs:
	SHORT=$(SHORT) .ci/test-fs

# In Windows, or what is there of it under Wine. As root, on Debian.
WINDOWS := ./...
test-windows:
	.ci/wine sh -ec 'go run ./examples/tour; go test $(SHORT) -vet=off -p 3 -count=1 -timeout 10m -skip "TestBrokenLocksAreCaught|TestTraceOf" $(WINDOWS)'

bench-windows:
	.ci/wine go test -run '^$$' -bench . -benchtime 1x .

vet:
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	@# For each system the standard library is compiled anew: where nothing is run, only so far as it takes to vet.
	@set -e; for m in $(MODULES); do for s in $(SYSTEMS); do \
		case $$m:$$s in ./proof:linux/amd64) ;; ./proof:*) continue;; esac; \
		echo "vet $$m for $$s"; \
		export GOOS=$${s%/*} GOARCH=$${s#*/}; \
		case $$s in \
		linux/amd64|windows/amd64) (cd $$m && go vet ./...);; \
		*) (cd $$m && CGO_ENABLED=0 GOGC=400 go vet -gcflags='all=-N -l -dwarf=false' ./...);; \
		esac; \
	done; done
	go vet -tags interlock_bsd ./...

staticcheck:
	@GOBIN=$(CURDIR)/.bin go install $(STATICCHECK)
	@set -e; for m in $(MODULES); do for s in linux windows; do echo "staticcheck $$m for $$s"; \
		case $$m:$$s in ./proof:windows) ;; *) (cd $$m && GOOS=$$s $(CURDIR)/.bin/staticcheck ./...);; esac; \
	done; done
	$(CURDIR)/.bin/staticcheck -tags interlock_bsd ./...

# Each fuzz target of each package. What it finds is kept in testdata/fuzz, and is a test from then on.
fuzz:
	@set -e; for m in $(MODULES); do cd $(CURDIR)/$$m; packages=$$(go list ./...); for p in $$packages; do \
		targets=$$(go test -list '^Fuzz' $$p); \
		for f in $$targets; do case $$f in Fuzz*) \
			go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$p;; esac; \
		done; \
	done; done

bench:
	go test $(SHORT) -run '^$$' -bench . -benchtime 1x -timeout 10m .

# On NFS v3, v4.0 and v4.2, with two clients: see docs/nfs.md. Debian only.
test-nfs:
	SHORT=$(SHORT) .ci/nfs
