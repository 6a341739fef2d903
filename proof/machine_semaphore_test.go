//go:build linux

package proof

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/interlock-go/interlock"
	"pgregory.net/rapid"
)

// namesNumber reports whether the text of err, without the name of the
// semaphore, contains the number n.
func namesNumber(err error, name string, n int64) bool {
	text := strings.ReplaceAll(err.Error(), name, "")
	return regexp.MustCompile(fmt.Sprintf(`\b%d\b`, n)).MatchString(text)
}

// semaphoreMachine tests FileSemaphores of one name. The slot files are
// replaced at times while no unit is in use.
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
				if err == nil || !namesNumber(err, name, size) || !namesNumber(err, name, n) {
					t.Fatalf("opened with size %d while the size is %d: error %v, want one that names both sizes", n, size, err)
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
						t.Fatal("TryAcquire of a closed semaphore does not panic")
					}
					return
				}
				got := o.s.TryAcquire(n)
				if got != (used+n <= size) {
					t.Fatalf("%d of %d units in use, but TryAcquire(%d) = %t", used, size, n, got)
				}
				if got {
					o.used += n
					used += n
				}
			},
			"acquire": func(t *rapid.T) {
				o, n := pick(t)
				ctx, cancel := shortContext()
				if !o.closed && used+n <= size {
					ctx, cancel = context.WithTimeout(context.Background(), timeout)
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
				if err := o.s.Acquire(doneContext, n); err != context.Canceled {
					t.Fatal(err)
				}
			},
			"release": func(t *rapid.T) {
				o, n := pick(t)
				if panics(func() { o.s.Release(n) }) != (n > o.used) {
					t.Fatalf("%d units in use, but Release(%d) panics: %t", o.used, n, n <= o.used)
				}
				if n <= o.used {
					o.used -= n
					used -= n
				}
			},
			"negative": func(t *rapid.T) {
				o, _ := pick(t)
				for call, f := range map[string]func(){
					"TryAcquire": func() { o.s.TryAcquire(-1) },
					"Release":    func() { o.s.Release(-1) },
					"Acquire":    func() { o.s.Acquire(doneContext, -1) },
				} {
					if !panics(f) {
						t.Fatalf("%s(-1) does not panic", call)
					}
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
					t.Fatalf("%d units in use, but the error of Close is %v", o.used, err)
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
