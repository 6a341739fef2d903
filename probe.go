package interlock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/interlock-go/interlock/internal/atpath"
)

// Probe reports whether locks work in the directory dir. It checks that the
// file system excludes files that were opened separately, as two processes
// would open them. It also checks that readers share a lock, and that a
// released lock is free. Probe creates a file of its own in dir and removes it.
//
// The error is nil if all checks pass. Otherwise it is an [*fs.PathError] that
// says what failed. It matches [errors.ErrUnsupported] if the file system
// reports that it has no locks.
//
// Probe does not tell whether another machine, or another mount of the same
// directory, is excluded too. If the file system does not answer, Probe waits.
func Probe(dir string) error {
	if err := probe(dir); err != nil {
		return &fs.PathError{Op: "probe", Path: dir, Err: err}
	}
	return nil
}

func probe(dir string) (err error) {
	abs, err := atpath.Absolute(dir) // an error if dir is empty
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(abs, ".interlock-probe-*")
	if err != nil {
		return err
	}
	defer func() {
		if removeErr := os.Remove(temp.Name()); err == nil {
			err = removeErr
		}
	}()
	defer temp.Close()
	var files [3]*sysFile
	for i := range files {
		if files[i], err = openFile(temp.Name(), false, 0); err != nil {
			return err
		}
		defer files[i].release()
	}
	const unlock = mode(-1)
	a, b, c := files[0], files[1], files[2]
	for _, step := range []struct {
		failure string
		file    *sysFile
		mode    mode
		want    error
	}{
		{"an exclusive lock cannot be acquired", a, exclusive, nil},
		{"two writers hold an exclusive lock", b, exclusive, ErrLocked},
		{"a reader and a writer hold the lock", c, shared, ErrLocked},
		{"a lock cannot be released", a, unlock, nil},
		{"a released lock is not free", b, shared, nil},
		{"readers do not share the lock", c, shared, nil},
		{"a writer and readers hold the lock", a, exclusive, ErrLocked},
		{"a lock cannot be released", b, unlock, nil},
		{"one reader releases the lock of another", a, exclusive, ErrLocked},
		{"a lock cannot be released", c, unlock, nil},
		{"a released lock is not free", a, exclusive, nil},
	} {
		var got error
		if step.mode == unlock {
			got = step.file.unlock()
		} else {
			got = step.file.tryLock(step.mode)
		}
		if got != step.want {
			if got == nil || got == ErrLocked {
				return errors.New(step.failure)
			}
			return fmt.Errorf("%s: %w", step.failure, got)
		}
	}
	if err := a.unlock(); err != nil {
		return err
	}
	closed, err := openFile(temp.Name(), false, 0)
	if err != nil {
		return err
	}
	err = closed.tryLock(exclusive)
	closed.close()
	if err != nil {
		return err
	}
	// A child process between fork and exec may still have the file.
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		err := b.tryLock(exclusive)
		if err != ErrLocked {
			return err
		}
		if time.Since(begin) > time.Second {
			return errors.New("a lock remains after its file is closed")
		}
	}
}
