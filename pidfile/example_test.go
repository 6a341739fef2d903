package pidfile_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/pidfile"
)

// newPath returns the path of a file that does not exist.
func newPath() string {
	return filepath.Join(interlock.Must(os.MkdirTemp("", "pidfile-example-*")), "app.pid")
}

func ExampleCreate() {
	path := newPath()
	file, err := pidfile.Create(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer file.Close()

	_, err = pidfile.Create(path) // Usually, another process does this.
	fmt.Println(errors.Is(err, interlock.ErrLocked))
	// Output: true
}

func ExampleRead() {
	path := newPath()
	file := interlock.Must(pidfile.Create(path)) // Usually, another process does this.

	pid, running, err := pidfile.Read(path)
	fmt.Println(pid == os.Getpid(), running, err)

	file.Close()
	_, _, err = pidfile.Read(path)
	fmt.Println(errors.Is(err, os.ErrNotExist))
	// Output:
	// true true <nil>
	// true
}

func ExampleRunningError() {
	path := newPath()
	file := interlock.Must(pidfile.Create(path)) // Usually, another process does this.
	defer file.Close()

	_, err := pidfile.Create(path)
	var running *pidfile.RunningError
	if errors.As(err, &running) {
		fmt.Println(running.Path == path, running.PID == os.Getpid())
	}
	// Output: true true
}

func ExampleFile() {
	path := newPath()
	file := interlock.Must(pidfile.Create(path))
	fmt.Println(string(interlock.Must(os.ReadFile(path))) == fmt.Sprintln(os.Getpid()))

	fmt.Println(file.Close())
	_, err := os.Stat(path)
	fmt.Println(errors.Is(err, os.ErrNotExist))
	// Output:
	// true
	// <nil>
	// true
}
