//go:build linux

package proof

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/interlock-go/interlock"
	"pgregory.net/rapid"
)

// An rwModel is a FileRWMutex and the state that it should have.
type rwModel struct {
	m       *interlock.FileRWMutex
	writer  bool
	readers int
	file    int // the number of the file that it holds
	closed  bool
}

func (o *rwModel) held() bool { return o.writer || o.readers > 0 }

// rwMutexMachine tests FileRWMutexes of one lock file, which is replaced at
// times. The files at the path are numbered.
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
		file := 0 // the number of the file that is at the path now
		pick := func(t *rapid.T) *rwModel {
			return rapid.SampledFrom(all).Draw(t, "object")
		}
		// free reports whether a writer, or a reader, could lock the file at
		// the path.
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
					t.Fatal("closed, but the error is", err)
				}
			case !write && stale && !o.writer && err == nil: // joined other readers before it noticed the new file
				o.readers++
			case stale || o.writer || write && o.readers > 0 || !free(write):
				if !errors.Is(err, refused) {
					t.Fatalf("error %v, want %v", err, refused)
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
		withShortContext := func(lock func(*interlock.FileRWMutex, context.Context) error) func(*interlock.FileRWMutex) error {
			return func(m *interlock.FileRWMutex) error {
				ctx, cancel := shortContext()
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
				// The context may end before the call acquires a free lock.
				if !free(true) {
					lock(t, true, withShortContext((*interlock.FileRWMutex).LockContext), context.DeadlineExceeded)
				}
			},
			"read": func(t *rapid.T) {
				if !free(false) {
					lock(t, false, withShortContext((*interlock.FileRWMutex).RLockContext), context.DeadlineExceeded)
				}
			},
			"done context": func(t *rapid.T) {
				o := pick(t)
				for _, f := range []func(context.Context) error{o.m.LockContext, o.m.RLockContext, o.m.TryLockContext, o.m.TryRLockContext} {
					if err := f(doneContext); err != context.Canceled {
						t.Fatal(err)
					}
				}
			},
			"unlock": func(t *rapid.T) {
				o := pick(t)
				if panics(o.m.Unlock) == o.writer {
					t.Fatalf("held for writing: %t, but Unlock panics: %t", o.writer, o.writer)
				}
				o.writer = false
			},
			"runlock": func(t *rapid.T) {
				o := pick(t)
				if panics(o.m.RUnlock) == (o.readers > 0) {
					t.Fatalf("%d readers, but RUnlock panics: %t", o.readers, o.readers > 0)
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
					t.Fatalf("held: %t, but the error of Close is %v", o.held(), err)
				case err == nil:
					o.closed = true
				}
			},
			"replace": func(t *rapid.T) {
				if _, err := os.Lstat(path); err != nil {
					return // it was removed
				}
				replaceFile(path)
				file++
			},
		})
	}
}
