// Package pidfile makes a program run only once at a time, by a file that holds its process ID.
//
//	file, err := pidfile.Create("/run/app.pid")
//	if err != nil {
//		log.Fatal(err) // pidfile /run/app.pid: runs already, with PID 123
//	}
//	defer file.Close()
//
// That the program runs is a lock on the file ([interlock.TryLock], on Unix flock(2)), and nothing
// else: not that the file exists, nor what is in it. The lock ends with the process, in whatever way
// that ends, so a file left by a crash is simply taken over. Child processes do not inherit it.
package pidfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/opened"
	"github.com/interlock-go/interlock/internal/paths"
)

// A RunningError says that the program runs already. It matches [interlock.ErrLocked].
type RunningError struct {
	Path string
	PID  int // 0 if it is not known
}

func (e *RunningError) Error() string {
	if e.PID == 0 {
		return "pidfile " + e.Path + ": runs already"
	}
	return fmt.Sprintf("pidfile %s: runs already, with PID %d", e.Path, e.PID)
}

func (e *RunningError) Unwrap() error { return interlock.ErrLocked }

// A File is the PID file of this process, from [Create] until Close or the end of the process.
type File struct {
	file *os.File
	path string // absolute: daemons change their directory
	once sync.Once
}

// files has every File that is not closed. The lock of one that nobody refers to any more
// must not go with the garbage.
var files sync.Map

// Create makes the file at path, with mode 0644 before umask, or takes over the one that is there,
// and writes the process ID and a newline to it. It does not wait, but for up to a second if others
// hold a shared lock, as [Read] does for an instant. If the program runs already,
// the error is a [*RunningError], with the PID that [Read] tells. Other errors are an [*fs.PathError]; they include
// a path that is a symbolic link or anything else but a regular file, and a file that contains something else than a PID.
func Create(path string) (*File, error) {
	begin := time.Now()
	abs, err := opened.Absolute(path)
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: err}
	}
	for range opened.Rounds {
		f, created, err := open(path, os.O_RDWR, true)
		if errors.Is(err, fs.ErrExist) || err == errAgain {
			continue // created this moment, or removed
		}
		if passing(err) && time.Since(begin) < time.Second {
			time.Sleep(rand.N(time.Millisecond))
			continue
		}
		if err != nil {
			return nil, err
		}
		err = interlock.TryLock(f)
		if opened.Forgotten(err) {
			opened.Release(f)
			continue
		}
		// Who only looks has a shared lock; who runs has an exclusive one.
		held := errors.Is(err, interlock.ErrLocked) && errors.Is(interlock.TryRLock(f), interlock.ErrLocked)
		switch current, statErr := opened.IsAt(f, path, os.Lstat); {
		case statErr != nil:
			opened.Release(f)
			return nil, statErr
		case !current:
			opened.Release(f) // whoever has the lock of a file that is gone has nothing
		case err == nil:
			if err := mayOverwrite(f); err != nil {
				if info, statErr := f.Stat(); statErr == nil && info.Size() == 0 { // which may be ours
					removeAndRelease(f, path)
				} else {
					opened.Release(f)
				}
				return nil, err
			}
			if err := write(f); err != nil {
				removeAndRelease(f, path)
				return nil, err
			}
			file := &File{file: f, path: abs}
			files.Store(file, nil)
			return file, nil
		case held:
			pid, current, _ := runningPID(f, path)
			opened.Release(f)
			if current {
				return nil, &RunningError{path, pid}
			}
		case errors.Is(err, interlock.ErrLocked) && time.Since(begin) < time.Second:
			opened.Release(f)
			// At random, or contenders that look whether the lock is held in earnest keep it
			// from each other in step.
			time.Sleep(rand.N(time.Millisecond))
		case created && errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.ENOLCK):
			// Nobody can have it locked here. That there are no locks left (ENOLCK), may be so for us alone.
			removeAndRelease(f, path)
			return nil, err
		default:
			opened.Release(f)
			return nil, err
		}
	}
	return nil, &fs.PathError{Op: "create", Path: path, Err: opened.ErrStale}
}

// mayOverwrite refuses what was never a PID file. A crash can have left a part of one, and a power failure
// zeros in its place.
func mayOverwrite(f *os.File) error {
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	if err == nil && (len(data) == 32 || len(bytes.Trim(data, "0123456789 \r\n\x00")) > 0) {
		err = &fs.PathError{Op: "create", Path: f.Name(), Err: errNoPID}
	}
	return err
}

// write writes our PID to f, in place of what is there.
func write(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(append(strconv.AppendInt(nil, int64(os.Getpid()), 10), '\n'), 0)
	return err
}

// settle is how long the holder of a lock may take to write its PID.
const settle = 20 * time.Millisecond

// runningPID returns the PID in f, a file that somebody else has locked, unless that is known to be
// the PID of another; and whether f has stayed the file at path.
func runningPID(f *os.File, path string) (pid int, current bool, err error) {
	for begin := time.Now(); ; time.Sleep(settle / 20) {
		pid, err := readPID(f)
		if err == nil && isOther(pid, f, path) {
			pid, err = 0, &fs.PathError{Op: "read", Path: path, Err: errOther}
		}
		current, statErr := opened.IsAt(f, path, os.Lstat)
		if statErr != nil {
			return 0, true, statErr
		}
		if err == nil || !current || time.Since(begin) > settle {
			return pid, current, err
		}
	}
}

// isOther reports whether it is known that the process is not the one that has locked the file at path, but one
// before it: it is gone, or the system names another that lives. If that one is gone, it has passed the lock on.
func isOther(pid int, f *os.File, path string) bool {
	if gone(pid) {
		return true
	}
	// Who has written it a moment ago and is gone, has not left its number to another so soon. To know that
	// saves much, where many want to run.
	if info, err := f.Stat(); err == nil && time.Since(info.ModTime()) < time.Second {
		return false
	}
	other := false
	holders, _ := interlock.Holders(path)
	for _, h := range holders {
		if h.Shared || h.Waiting || h.PID == 0 {
			continue
		}
		if h.PID == pid {
			return false
		}
		other = other || !gone(h.PID)
	}
	return other
}

var (
	errNoPID = errors.New("does not contain a process ID")
	errOther = errors.New("contains the process ID of another than who runs")
)

func readPID(f *os.File) (int, error) {
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	if err != nil {
		return 0, err
	}
	// Without the newline, it may be only the beginning of the number.
	digits, ok := bytes.CutSuffix(data, []byte("\n"))
	pid, err := strconv.ParseInt(string(digits), 10, 32)
	if !ok || err != nil || pid <= 0 {
		return 0, &fs.PathError{Op: "read", Path: f.Name(), Err: errNoPID}
	}
	return int(pid), nil
}

// Read returns the process ID in the file at path, and whether that program runs: whether somebody has
// the lock. If it does not, the process ID is the one of a process that has crashed, and may
// since have been given to another.
//
// If there is no file, the error matches [fs.ErrNotExist]. If the file does not contain a
// process ID, or if the program runs and it is known that the process ID is not its own but one of before, the
// error is an [*fs.PathError], pid is 0, and running is nevertheless right. Known is that of a process that is gone,
// and of any other that does not have the lock by what [interlock.Holders] tells, from a second after the file was
// written.
func Read(path string) (pid int, running bool, err error) {
	begin := time.Now()
	for range opened.Rounds {
		f, _, err := open(path, os.O_RDONLY, false)
		if err == errAgain {
			continue
		}
		if passing(err) && time.Since(begin) < time.Second {
			time.Sleep(rand.N(time.Millisecond))
			continue
		}
		if err != nil {
			return 0, false, err
		}
		pid, running, current, err := look(f, path)
		opened.Release(f)
		if current {
			return pid, running, err
		}
	}
	return 0, false, &fs.PathError{Op: "read", Path: path, Err: opened.ErrStale}
}

// look reads f. What it returns is to be believed if f is current, the file at path.
func look(f *os.File, path string) (pid int, running, current bool, err error) {
	err = interlock.TryRLock(f)
	switch {
	case opened.Forgotten(err):
		return 0, false, false, nil
	case errors.Is(err, interlock.ErrLocked):
		pid, current, err = runningPID(f, path)
		return pid, true, current, err
	case err != nil:
		return 0, false, true, err
	}
	pid, err = readPID(f)
	current, statErr := opened.IsAt(f, path, os.Lstat)
	if statErr != nil {
		return 0, false, true, statErr
	}
	return pid, false, current, err
}

// Close removes the file, and then gives up the lock. It does not remove what somebody else
// has put in its place. If the file cannot be removed, the lock is given up nevertheless. Of a
// File that is closed already the error matches [fs.ErrClosed].
func (f *File) Close() error {
	err := error(&fs.PathError{Op: "close", Path: f.file.Name(), Err: fs.ErrClosed})
	f.once.Do(func() {
		files.Delete(f)
		err = removeAndRelease(f.file, f.path)
	})
	return err
}

// open opens the regular file at path. It does not follow a symbolic link.
func open(path string, flag int, create bool) (f *os.File, created bool, err error) {
	// Look before opening: to open a FIFO or a device is to do something to it.
	info, err := os.Lstat(path)
	if err == nil {
		if err := regular(path, info); err != nil {
			return nil, false, err
		}
	}
	if err == nil || create && errors.Is(err, fs.ErrNotExist) {
		if err := paths.OfFile(path); err != nil {
			return nil, false, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
	// Without O_CREATE first: in a sticky directory Linux refuses O_CREAT on a file of somebody
	// else's, even to open it (fs.protected_regular, proc(5)).
	f, err = os.OpenFile(path, flag|openFlags, 0)
	if create && errors.Is(err, fs.ErrNotExist) {
		f, err = os.OpenFile(path, flag|openFlags|os.O_CREATE|os.O_EXCL, 0o644)
		created = err == nil
	}
	if err != nil {
		if opened.Forgotten(err) && !errors.Is(err, fs.ErrNotExist) {
			err = errAgain
		}
		return nil, created, err
	}
	info, err = f.Stat()
	if err == nil {
		err = regular(path, info)
	}
	if err != nil {
		f.Close()
		if opened.Forgotten(err) {
			err = errAgain
		}
		return nil, created, err
	}
	return f, created, nil
}

// errAgain: what is at the path has changed meanwhile.
var errAgain = errors.New("open it again")

var errNotRegular = errors.New("not a regular file")

func regular(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	return nil
}
