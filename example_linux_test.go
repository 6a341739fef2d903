//go:build !interlock_bsd

package interlock_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/interlock-go/interlock"
)

func ExampleHolders() {
	path := filepath.Join(tempDir(), "app.lock")
	mu := interlock.Must(interlock.NewFileRWMutex(path))
	mu.Lock()
	defer mu.Unlock()

	holders, err := interlock.Holders(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, h := range holders {
		fmt.Println("this process:", h.PID == os.Getpid(), "waits:", h.Waiting)
	}
	// Output: this process: true waits: false
}

func ExampleHolder() {
	describe := func(h interlock.Holder) string {
		verb := "holds"
		if h.Waiting {
			verb = "waits for"
		}
		mode := "exclusive"
		if h.Shared {
			mode = "shared"
		}
		return fmt.Sprintf("process %d (%s) %s a lock that is %s", h.PID, h.Command, verb, mode)
	}
	fmt.Println(describe(interlock.Holder{PID: 42, Command: "backup", Shared: true}))
	// Output: process 42 (backup) holds a lock that is shared
}

// A log can say which process a call waits for, and which waits are long.
func ExampleTrace() {
	path := filepath.Join(tempDir(), "app.lock")
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch a.Key {
		case slog.TimeKey, "waited", "path", "pid":
			return slog.Attr{} // omitted because these differ between runs
		}
		return a
	}}))
	other := interlock.Must(interlock.NewFileRWMutex(path)) // usually, in another process
	other.Lock()
	trace := &interlock.Trace{
		WaitStart: func(lock interlock.TraceInfo) {
			holders, _ := interlock.Holders(lock.Path)
			for _, h := range holders {
				if !h.Waiting {
					log.Info("waiting", "path", lock.Path, "pid", h.PID, "me", h.PID == os.Getpid())
				}
			}
			time.AfterFunc(50*time.Millisecond, other.Unlock) // for this example
		},
		Acquired: func(lock interlock.TraceInfo, waited time.Duration) {
			if waited > 10*time.Millisecond {
				log.Warn("slow", "path", lock.Path, "waited", waited)
			}
		},
	}
	mu := interlock.Must(interlock.NewFileRWMutex(path, interlock.WithTrace(trace)))
	mu.Lock()
	mu.Unlock()
	// Output:
	// level=INFO msg=waiting me=true
	// level=WARN msg=slow
}
