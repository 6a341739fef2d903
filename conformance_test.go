package interlock_test

import (
	"os"
	"testing"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/locktest"
)

// The suite of package locktest, whose own tests run it too, but not as if the system were poorer
// than it is (INTERLOCK_TEST), and not on NFS.

var conforming = locktest.Locks{
	RWMutex: func(name string) (locktest.RWMutex, error) { return interlock.NewFileRWMutex(name) },
	RMutex:  func(name string) (locktest.RMutex, error) { return interlock.NewFileRMutex(name) },
	Semaphore: func(name string, size int64) (locktest.Semaphore, error) {
		return interlock.NewFileSemaphore(name, size)
	},
}

func init() { interlock.MainOfConformance = func() { locktest.Main(conforming) } }

func TestConformance(t *testing.T) {
	if os.Getenv("INTERLOCK_TEST") == "" && os.Getenv("INTERLOCK_NFS") == "" {
		t.Skip("package locktest runs it")
	}
	locktest.Test(t, conforming)
}
