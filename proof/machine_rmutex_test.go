//go:build linux

package proof

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/interlock-go/interlock"
	"pgregory.net/rapid"
)

// rMutexMachine tests FileRMutexes of one lock file, with three owners.
func rMutexMachine(t testing.TB) func(*rapid.T) {
	newDir := newDir(t)
	return func(t *rapid.T) {
		path := filepath.Join(newDir(), "lock")
		type object struct {
			m      *interlock.FileRMutex
			depth  int // the locks of the holder by this object
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
					t.Fatalf("error %v, want %v", err, refused)
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
						ctx, cancel := context.WithTimeout(context.Background(), timeout)
						if o != holder {
							ctx, cancel = shortContext()
						}
						defer cancel()
						return m.LockContext(ctx, o)
					}, context.DeadlineExceeded)
				}
			},
			"done context": func(t *rapid.T) {
				obj, o := pick(t)
				if err := obj.m.LockContext(doneContext, o); err != context.Canceled {
					t.Fatal(err)
				}
			},
			"unlock": func(t *rapid.T) {
				obj, o := pick(t)
				may := o == holder && obj.depth > 0
				if panics(func() { obj.m.Unlock(o) }) == may {
					t.Fatalf("held: %t, but Unlock panics: %t", may, may)
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
					t.Fatalf("depth %d, but the error of Close is %v", obj.depth, err)
				case err == nil:
					obj.closed = true
				}
			},
		})
	}
}
