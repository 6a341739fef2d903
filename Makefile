# The tests, checks and benchmarks of every module of this repository.

MODULES := $(patsubst %/go.mod,%,$(shell find . -name go.mod -not -path '*/.*/*'))
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# Every system the code must compile for, with its tests.
SYSTEMS := \
	linux/amd64 linux/386 linux/arm linux/arm64 linux/riscv64 linux/s390x \
	darwin/amd64 darwin/arm64 windows/amd64 windows/arm64 windows/386 \
	freebsd/amd64 openbsd/amd64 netbsd/amd64 dragonfly/amd64 \
	illumos/amd64 solaris/amd64 aix/ppc64

.PHONY: test test-arch test-fs test-nfs test-windows vet bench

test:
	@set -e; for m in $(MODULES); do (cd $$m && go test -race -timeout 10m ./...); done
	@# and as if the system were poorer than it is (rwmutex_linux_test.go), which the test cache does not see
	INTERLOCK_TEST=remote go test -count=1 -race -timeout 10m .
	INTERLOCK_TEST=poll go test -count=1 -race -timeout 10m .

test-arch:
	.ci/test-arch

test-fs:
	.ci/test-fs

# In Windows, or what is there of it under Wine. As root, on Debian.
test-windows:
	.ci/wine sh -ec 'go run ./examples/tour; go test -count=1 -timeout 10m ./...; go test -run "^$$" -bench . -benchtime 1x .'

vet:
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	@GOBIN=$(CURDIR)/.bin go install $(STATICCHECK)
	@set -e; for m in $(MODULES); do for s in $(SYSTEMS); do \
		echo "vet $$m for $$s"; \
		export CGO_ENABLED=0 GOOS=$${s%/*} GOARCH=$${s#*/}; \
		(cd $$m && go vet ./...); \
		case $$s in linux/amd64|windows/amd64|darwin/arm64|freebsd/amd64) (cd $$m && $(CURDIR)/.bin/staticcheck ./...);; esac; \
	done; done

bench:
	@set -e; for m in $(MODULES); do (cd $$m && go test -run '^$$' -bench . -benchtime 1x -timeout 10m ./...); done

# On NFS v3, v4.0 and v4.2, with two clients: see docs/nfs.md. Debian only.
test-nfs:
	.ci/nfs
