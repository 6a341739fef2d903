//go:build linux

package proof

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// These tests run random sequences of calls on several objects of one process,
// and compare each result with that of a simple model. No call waits for long.
// As fuzz targets, they take the sequence from the fuzzer.

func TestRWMutexMachine(t *testing.T)   { rapid.Check(t, rwMutexMachine(t)) }
func TestRMutexMachine(t *testing.T)    { rapid.Check(t, rMutexMachine(t)) }
func TestSemaphoreMachine(t *testing.T) { rapid.Check(t, semaphoreMachine(t)) }

func FuzzRWMutexMachine(f *testing.F)   { f.Fuzz(rapid.MakeFuzz(rwMutexMachine(f))) }
func FuzzRMutexMachine(f *testing.F)    { f.Fuzz(rapid.MakeFuzz(rMutexMachine(f))) }
func FuzzSemaphoreMachine(f *testing.F) { f.Fuzz(rapid.MakeFuzz(semaphoreMachine(f))) }

// newDir returns a function that creates a directory for one sequence.
func newDir(t testing.TB) func() string {
	dir := t.TempDir()
	return func() string {
		sub, err := os.MkdirTemp(dir, "")
		if err != nil {
			panic(err)
		}
		return sub
	}
}

// doneContext is a context that is canceled.
var doneContext, cancelDone = context.WithCancel(context.Background())

func init() { cancelDone() }

// shortContext returns a context that ends soon.
func shortContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Millisecond)
}

// panics reports whether f panics.
func panics(f func()) (p bool) {
	defer func() { p = recover() != nil }()
	f()
	return false
}

// isClosed reports whether err is the error of a call on a closed object. If
// the context ended first, that is its error instead.
func isClosed(err error) bool {
	var pathErr *fs.PathError
	return errors.Is(err, fs.ErrClosed) && errors.As(err, &pathErr) || err == context.DeadlineExceeded
}
