package pidfile_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/pidfile"
)

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

	_, err = pidfile.Create(path) // in real life, by another process
	var running *pidfile.RunningError
	fmt.Println(errors.As(err, &running), running.PID == os.Getpid())
	// Output: true true
}

func ExampleRead() {
	path := newPath()
	file := interlock.Must(pidfile.Create(path)) // in real life, by another process

	pid, running, err := pidfile.Read(path)
	fmt.Println(pid == os.Getpid(), running, err)

	file.Close()
	_, _, err = pidfile.Read(path)
	fmt.Println(errors.Is(err, os.ErrNotExist))
	// Output:
	// true true <nil>
	// true
}
