//go:build unix && !aix

package interlock_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/interlock-go/interlock"
)

// Users of one group share this lock: those who can read the file can lock it.
func ExampleWithPerm() {
	path := filepath.Join(tempDir(), "app.lock")
	mu := interlock.Must(interlock.NewFileRWMutex(path, interlock.WithPerm(0o640)))
	defer mu.Close()
	mode := interlock.Must(os.Stat(path)).Mode()
	fmt.Println("owner:", mode&0o600 != 0, "other users:", mode&0o007 != 0)
	// Output: owner: true other users: false
}
