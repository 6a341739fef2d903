//go:build linux

package proof

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"pgregory.net/rapid"
)

// State machines: any sequence of calls, of several objects of one process that do not wait for long, does what a
// model of a few lines does. They are tests, and with go test -fuzz they are fuzzed.

func TestRWMutexMachine(t *testing.T)   { rapid.Check(t, rwMutexMachine(t)) }
func TestRMutexMachine(t *testing.T)    { rapid.Check(t, rMutexMachine(t)) }
func TestSemaphoreMachine(t *testing.T) { rapid.Check(t, semaphoreMachine(t)) }

func FuzzRWMutexMachine(f *testing.F)   { f.Fuzz(rapid.MakeFuzz(rwMutexMachine(f))) }
func FuzzRMutexMachine(f *testing.F)    { f.Fuzz(rapid.MakeFuzz(rMutexMachine(f))) }
func FuzzSemaphoreMachine(f *testing.F) { f.Fuzz(rapid.MakeFuzz(semaphoreMachine(f))) }

// newDir is a directory for one sequence.
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

var over, end = context.WithCancel(context.Background())

func init() { end() }

// soon is a context that ends soon.
func soon() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Millisecond)
}

// panics reports whether f panics.
func panics(f func()) (p bool) {
	defer func() { p = recover() != nil }()
	f()
	return false
}

// isClosed reports whether err says that something is closed, or that a context ended before it was looked at.
func isClosed(err error) bool {
	var pathErr *fs.PathError
	return errors.Is(err, fs.ErrClosed) && errors.As(err, &pathErr) || err == context.DeadlineExceeded
}

// An rwModel is a FileRWMutex as it should be.
type rwModel struct {
	m       *interlock.FileRWMutex
	writer  bool
	readers int
	file    int // which it holds
	closed  bool
}

func (o *rwModel) held() bool { return o.writer || o.readers > 0 }

func rwMutexMachine(t testing.TB) func(*rapid.T) {
	newDir := newDir(t)
	return func(t *rapid.T) {
		path := filepath.Join(newDir(), "lock")
		var all []*rwModel
		defer func() {
			for _, o := range all {
				for ; o.readers > 0; o.readers-- {
					o.m.RUnlock()
				}
				if o.writer {
					o.m.Unlock()
				}
				o.m.Close()
			}
		}()
		file := 0 // the one at the path is the file'th
		pick := func(t *rapid.T) *rwModel {
			return rapid.SampledFrom(all).Draw(t, "object")
		}
		// free reports whether nobody holds the file at the path in a way that excludes a writer, or a reader.
		free := func(write bool) bool {
			return !slices.ContainsFunc(all, func(o *rwModel) bool {
				return o.file == file && (o.writer || write && o.readers > 0)
			})
		}
		lock := func(t *rapid.T, write bool, do func(m *interlock.FileRWMutex) error, refused error) {
			o := pick(t)
			stale := o.held() && o.file != file
			err := do(o.m)
			switch {
			case o.closed:
				if !isClosed(err) {
					t.Fatal("closed: ", err)
				}
			case !write && stale && !o.writer && err == nil: // it joined before it saw that the file is another one
				o.readers++
			case stale || o.writer || write && o.readers > 0 || !free(write):
				if !errors.Is(err, refused) {
					t.Fatalf("%v, want %v", err, refused)
				}
			case err != nil:
				t.Fatal(err)
			default:
				o.file, o.writer = file, write
				if !write {
					o.readers++
				}
			}
		}
		waitSoon := func(lock func(*interlock.FileRWMutex, context.Context) error) func(*interlock.FileRWMutex) error {
			return func(m *interlock.FileRWMutex) error {
				ctx, cancel := soon()
				defer cancel()
				return lock(m, ctx)
			}
		}
		bg := context.Background()
		open := func(t *rapid.T) {
			if len(all) == 5 {
				return
			}
			m, err := interlock.NewFileRWMutex(path)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, &rwModel{m: m})
		}
		open(t)
		t.Repeat(map[string]func(*rapid.T){
			"open": open,
			"try": func(t *rapid.T) {
				lock(t, true, func(m *interlock.FileRWMutex) error { return m.TryLockContext(bg) }, interlock.ErrLocked)
			},
			"try read": func(t *rapid.T) {
				lock(t, false, func(m *interlock.FileRWMutex) error { return m.TryRLockContext(bg) }, interlock.ErrLocked)
			},
			"lock": func(t *rapid.T) {
				// A millisecond need not be enough for a lock that is free.
				if !free(true) {
					lock(t, true, waitSoon((*interlock.FileRWMutex).LockContext), context.DeadlineExceeded)
				}
			},
			"read": func(t *rapid.T) {
				if !free(false) {
					lock(t, false, waitSoon((*interlock.FileRWMutex).RLockContext), context.DeadlineExceeded)
				}
			},
			"done context": func(t *rapid.T) {
				o := pick(t)
				for _, f := range []func(context.Context) error{o.m.LockContext, o.m.RLockContext, o.m.TryLockContext, o.m.TryRLockContext} {
					if err := f(over); err != context.Canceled {
						t.Fatal(err)
					}
				}
			},
			"unlock": func(t *rapid.T) {
				o := pick(t)
				if panics(o.m.Unlock) == o.writer {
					t.Fatal("Unlock, locked: ", o.writer)
				}
				o.writer = false
			},
			"runlock": func(t *rapid.T) {
				o := pick(t)
				if panics(o.m.RUnlock) == (o.readers > 0) {
					t.Fatal("RUnlock, readers: ", o.readers)
				}
				o.readers = max(0, o.readers-1)
			},
			"close": func(t *rapid.T) {
				o := pick(t)
				err := o.m.Close()
				switch {
				case o.closed:
					if !isClosed(err) {
						t.Fatal(err)
					}
				case (err == nil) == o.held():
					t.Fatal(err)
				case err == nil:
					o.closed = true
				}
			},
			"replace": func(t *rapid.T) {
				if _, err := os.Lstat(path); err != nil {
					return // it is gone
				}
				replaceFile(path)
				file++
			},
		})
	}
}

func rMutexMachine(t testing.TB) func(*rapid.T) {
	newDir := newDir(t)
	return func(t *rapid.T) {
		path := filepath.Join(newDir(), "lock")
		type object struct {
			m      *interlock.FileRMutex
			depth  int // by this object
			closed bool
		}
		var all []*object
		owners := []interlock.Owner{interlock.NewOwner(), interlock.NewOwner(), interlock.NewOwner()}
		holder, depth := interlock.Owner{}, 0
		defer func() {
			for _, o := range all {
				for ; o.depth > 0; o.depth-- {
					o.m.Unlock(holder)
				}
				o.m.Close()
			}
		}()
		pick := func(t *rapid.T) (*object, interlock.Owner) {
			return rapid.SampledFrom(all).Draw(t, "object"), rapid.SampledFrom(owners).Draw(t, "owner")
		}
		lock := func(t *rapid.T, do func(m *interlock.FileRMutex, o interlock.Owner) error, refused error) {
			obj, o := pick(t)
			err := do(obj.m, o)
			switch {
			case obj.closed:
				if !isClosed(err) {
					t.Fatal(err)
				}
			case depth > 0 && holder != o:
				if !errors.Is(err, refused) {
					t.Fatalf("%v, want %v", err, refused)
				}
			case err != nil:
				t.Fatal(err)
			default:
				holder = o
				obj.depth++
				depth++
			}
		}
		open := func(t *rapid.T) {
			if len(all) == 4 {
				return
			}
			m, err := interlock.NewFileRMutex(path)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, &object{m: m})
		}
		open(t)
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				for _, obj := range all {
					for _, o := range owners {
						want := depth
						if o != holder {
							want = 0
						}
						if got := obj.m.Depth(o); !obj.closed && got != want {
							t.Fatalf("depth %d, want %d", got, want)
						}
					}
				}
			},
			"open": open,
			"try": func(t *rapid.T) {
				lock(t, func(m *interlock.FileRMutex, o interlock.Owner) error {
					return m.TryLockContext(context.Background(), o)
				}, interlock.ErrLocked)
			},
			"lock": func(t *rapid.T) {
				if depth > 0 {
					lock(t, func(m *interlock.FileRMutex, o interlock.Owner) error {
						ctx, cancel := context.WithTimeout(context.Background(), patience)
						if o != holder {
							ctx, cancel = soon()
						}
						defer cancel()
						return m.LockContext(ctx, o)
					}, context.DeadlineExceeded)
				}
			},
			"done context": func(t *rapid.T) {
				obj, o := pick(t)
				if err := obj.m.LockContext(over, o); err != context.Canceled {
					t.Fatal(err)
				}
			},
			"unlock": func(t *rapid.T) {
				obj, o := pick(t)
				may := o == holder && obj.depth > 0
				if panics(func() { obj.m.Unlock(o) }) == may {
					t.Fatal("Unlock, held: ", may)
				}
				if may {
					obj.depth--
					if depth--; depth == 0 {
						holder = interlock.Owner{}
					}
				}
			},
			"close": func(t *rapid.T) {
				obj, _ := pick(t)
				err := obj.m.Close()
				switch {
				case obj.closed:
					if !isClosed(err) {
						t.Fatal(err)
					}
				case (err == nil) == (obj.depth > 0):
					t.Fatal(err)
				case err == nil:
					obj.closed = true
				}
			},
		})
	}
}

func semaphoreMachine(t testing.TB) func(*rapid.T) {
	newDir := newDir(t)
	return func(t *rapid.T) {
		name := filepath.Join(newDir(), "sem")
		type object struct {
			s      *interlock.FileSemaphore
			used   int64
			closed bool
		}
		var all []*object
		defer func() {
			for _, o := range all {
				if !o.closed {
					o.s.Release(o.used)
					o.s.Close()
				}
			}
		}()
		size, used := int64(0), int64(0)
		pick := func(t *rapid.T) (*object, int64) {
			return rapid.SampledFrom(all).Draw(t, "object"), rapid.Int64Range(0, 5).Draw(t, "units")
		}
		open := func(t *rapid.T) {
			if len(all) == 5 {
				return
			}
			n := rapid.Int64Range(0, 4).Draw(t, "size")
			inUse := slices.ContainsFunc(all, func(o *object) bool { return !o.closed })
			s, err := interlock.NewFileSemaphore(name, n)
			if inUse && n != size {
				if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("size %d ", size)) || !strings.Contains(err.Error(), fmt.Sprintf("size %d", n)) {
					t.Fatal(err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			size = n
			all = append(all, &object{s: s})
		}
		open(t)
		t.Repeat(map[string]func(*rapid.T){
			"open": open,
			"try": func(t *rapid.T) {
				o, n := pick(t)
				if o.closed {
					if !panics(func() { o.s.TryAcquire(n) }) {
						t.Fatal("closed")
					}
					return
				}
				got := o.s.TryAcquire(n)
				if got != (used+n <= size) {
					t.Fatalf("%d of %d in use, TryAcquire(%d) = %t", used, size, n, got)
				}
				if got {
					o.used += n
					used += n
				}
			},
			"acquire": func(t *rapid.T) {
				o, n := pick(t)
				ctx, cancel := soon()
				if !o.closed && used+n <= size {
					ctx, cancel = context.WithTimeout(context.Background(), patience)
				}
				defer cancel()
				err := o.s.Acquire(ctx, n)
				switch {
				case o.closed:
					if !isClosed(err) {
						t.Fatal(err)
					}
				case used+n > size:
					if err != context.DeadlineExceeded {
						t.Fatal(err)
					}
				case err != nil:
					t.Fatal(err)
				default:
					o.used += n
					used += n
				}
			},
			"done context": func(t *rapid.T) {
				o, n := pick(t)
				if err := o.s.Acquire(over, n); err != context.Canceled {
					t.Fatal(err)
				}
			},
			"release": func(t *rapid.T) {
				o, n := pick(t)
				if panics(func() { o.s.Release(n) }) != (n > o.used) {
					t.Fatalf("Release(%d) of %d", n, o.used)
				}
				if n <= o.used {
					o.used -= n
					used -= n
				}
			},
			"negative": func(t *rapid.T) {
				o, _ := pick(t)
				if !panics(func() { o.s.TryAcquire(-1) }) || !panics(func() { o.s.Release(-1) }) || !panics(func() { o.s.Acquire(over, -1) }) {
					t.Fatal("negative")
				}
			},
			"close": func(t *rapid.T) {
				o, _ := pick(t)
				err := o.s.Close()
				switch {
				case o.closed:
					if !isClosed(err) {
						t.Fatal(err)
					}
				case (err == nil) == (o.used > 0):
					t.Fatal(err)
				case err == nil:
					o.closed = true
				}
			},
			"replace slots": func(t *rapid.T) {
				if used > 0 {
					return
				}
				slots, _ := filepath.Glob(name + ".[0-9]*.lock")
				for _, slot := range slots {
					replaceFile(slot)
				}
			},
		})
	}
}
