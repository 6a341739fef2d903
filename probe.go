package interlock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Probe finds out whether locks in the directory dir do what they should: whether its file system
// keeps apart who opens a file separately, as two processes do, lets readers share, and frees
// what is released. It makes a file of its own in dir and removes it.
//
// The error is nil if they do, matches [errors.ErrUnsupported] if the file system says
// that it has no locks, and otherwise an [*fs.PathError] that tells what failed. Probe does not tell
// whether another machine or another mount of the same directory is excluded too. It has no context: where the
// file system does not answer, it waits for that.
func Probe(dir string) (err error) {
	defer func() {
		if err != nil {
			err = &fs.PathError{Op: "probe", Path: dir, Err: err}
		}
	}()
	abs, err := absolute(dir) // an error, if it is empty
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(abs, ".interlock-probe-*")
	if err != nil {
		return err
	}
	path := f.Name()
	defer func() {
		if removeErr := os.Remove(path); err == nil {
			err = removeErr
		}
	}()
	defer f.Close()
	var files [3]*lockFile
	for i := range files {
		if files[i], err = openLockFile(path, 0o600); err != nil {
			return err
		}
		defer files[i].closeLock()
	}
	a, b, c := files[0], files[1], files[2]
	for _, step := range []struct {
		what string
		file *lockFile
		mode hold // or free, to release
		want error
	}{
		{"an exclusive lock is not to be had", a, exclusive, nil},
		{"two hold an exclusive lock", b, exclusive, ErrLocked},
		{"a reader holds it beside a writer", c, shared, ErrLocked},
		{"a lock cannot be released", a, free, nil},
		{"a released lock is not free", b, shared, nil},
		{"readers do not share it", c, shared, nil},
		{"a writer holds it beside readers", a, exclusive, ErrLocked},
		{"a lock cannot be released", b, free, nil},
		{"one reader releases it for another", a, exclusive, ErrLocked},
		{"a lock cannot be released", c, free, nil},
		{"a released lock is not free", a, exclusive, nil},
	} {
		var got error
		if step.mode == free {
			got = step.file.unlock()
		} else {
			got = step.file.tryLock(step.mode)
		}
		if got != step.want {
			if got == nil || got == ErrLocked {
				return errors.New(step.what)
			}
			return fmt.Errorf("%s: %w", step.what, got)
		}
	}
	if err := a.current(clock()); err != nil {
		return fmt.Errorf("a file is not the one at its path: %w", err)
	}
	a.kill()
	// A child process between fork and exec still has the file.
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		err := b.tryLock(exclusive)
		if err != ErrLocked {
			return err
		}
		if time.Since(begin) > time.Second {
			return errors.New("a lock outlives the closing of its file")
		}
	}
}
