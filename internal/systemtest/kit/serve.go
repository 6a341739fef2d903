package kit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/interlock-go/interlock/internal/proc"
)

// Serve prints "ready", and then calls do for each line of the standard input,
// on a goroutine of its own. It prints the line followed by "ok" or the error.
// The line "cancel" cancels the context of all calls so far.
func Serve(do func(ctx context.Context, line string) error) {
	var mu sync.Mutex
	ctx, cancel := context.WithCancel(context.Background())
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		line := in.Text()
		if line == "cancel" {
			cancel()
			ctx, cancel = context.WithCancel(context.Background())
			continue
		}
		ctx := ctx
		go func() {
			err := do(ctx, line)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				fmt.Println(line, err)
			} else {
				fmt.Println(line, "ok")
			}
		}()
	}
	cancel()
}

// A RWMutex is the part of a FileRWMutex that [ServeRWMutex] needs.
type RWMutex interface {
	LockContext(context.Context) error
	RLockContext(context.Context) error
	TryLockContext(context.Context) error
	TryRLockContext(context.Context) error
	Unlock()
	RUnlock()
}

// ServeRWMutex calls a method of m for each line of the standard input, see
// [Serve]: lock, rlock, trylock, tryrlock, unlock or runlock.
func ServeRWMutex(m RWMutex) {
	calls := map[string]func(context.Context) error{
		"lock":     m.LockContext,
		"rlock":    m.RLockContext,
		"trylock":  m.TryLockContext,
		"tryrlock": m.TryRLockContext,
		"unlock":   func(context.Context) error { m.Unlock(); return nil },
		"runlock":  func(context.Context) error { m.RUnlock(); return nil },
	}
	Serve(func(ctx context.Context, line string) error { return calls[line](ctx) })
}

// A Semaphore is the part of a FileSemaphore that [ServeSemaphore] needs.
type Semaphore interface {
	Acquire(ctx context.Context, n int64) error
	TryAcquire(n int64) bool
	Release(n int64)
	Close() error
}

// ServeSemaphore calls a method of s for each line of the standard input, see
// [Serve]: "acquire n", "try n", "release n" or "close".
func ServeSemaphore(s Semaphore) {
	Serve(func(ctx context.Context, line string) error {
		verb, number, _ := strings.Cut(line, " ")
		n, _ := strconv.ParseInt(number, 10, 64)
		switch verb {
		case "acquire":
			return s.Acquire(ctx, n)
		case "try":
			if !s.TryAcquire(n) {
				return errors.New("already locked")
			}
		case "release":
			s.Release(n)
		case "close":
			return s.Close()
		}
		return nil
	})
}

// StartServer starts a process that runs the named function, which must end in
// [Serve]. The process is killed when the test ends.
func StartServer(t testing.TB, name string, args ...string) *proc.Process {
	t.Helper()
	p := proc.Start(name, args...)
	t.Cleanup(p.Kill)
	p.Expect("ready")
	return p
}

// Silent fails the test if the process prints a line within a [Moment].
func Silent(t testing.TB, p *proc.Process) {
	t.Helper()
	if line, ok := p.Line(Moment); ok {
		t.Fatalf("the process printed %q", line)
	}
}
