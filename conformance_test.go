package interlock_test

import (
	"os"
	"testing"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/locktest"
)

// The tests of package locktest run the suite, too, but not on NFS, and not
// with the environment variable INTERLOCK_TEST, which limits what the system
// can do.

var locks = locktest.Locks{
	RWMutex: func(name string) (locktest.RWMutex, error) { return interlock.NewFileRWMutex(name) },
	RMutex:  func(name string) (locktest.RMutex, error) { return interlock.NewFileRMutex(name) },
	Semaphore: func(name string, size int64) (locktest.Semaphore, error) {
		return interlock.NewFileSemaphore(name, size)
	},
}

func init() { interlock.MainOfConformance = func() { locktest.Main(locks) } }

func TestConformance(t *testing.T) {
	if os.Getenv("INTERLOCK_TEST") == "" && os.Getenv("INTERLOCK_NFS") == "" {
		t.Skip("package locktest runs this suite")
	}
	locktest.Test(t, locks)
}
