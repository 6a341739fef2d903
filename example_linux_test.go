//go:build !interlock_bsd

package interlock_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/interlock-go/interlock"
)

// Who waits long, and for whom, in the log.
func ExampleWithTrace() {
	name := filepath.Join(tempDir(), "app.lock")
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "waited" || a.Key == "path" || a.Key == "pid" {
			return slog.Attr{} // which differ from run to run
		}
		return a
	}}))
	holder := interlock.Must(interlock.NewFileRWMutex(name)) // in real life, in another process
	holder.Lock()
	trace := &interlock.Trace{
		WaitStart: func(lock interlock.TraceInfo) {
			holders, _ := interlock.Holders(lock.Path) // none where the system does not tell
			for _, h := range holders {
				if !h.Waiting {
					log.Info("waiting", "path", lock.Path, "pid", h.PID, "me", h.PID == os.Getpid())
				}
			}
			time.AfterFunc(50*time.Millisecond, holder.Unlock) // so here it has been waited for
		},
		Acquired: func(lock interlock.TraceInfo, waited time.Duration) {
			if waited > 10*time.Millisecond {
				log.Warn("slow", "path", lock.Path, "waited", waited)
			}
		},
	}
	mu := interlock.Must(interlock.NewFileRWMutex(name, interlock.WithTrace(trace)))
	mu.Lock()
	mu.Unlock()
	// Output:
	// level=INFO msg=waiting me=true
	// level=WARN msg=slow
}
