package lockedfile

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/fault"
	"golang.org/x/sys/unix"
)

func init() { children["faults"] = fault.Child(faults) }

// TestFaults has each system call of each scenario fail. A call of the package
// succeeds, or returns an error that names the path and matches the one of the
// system call. The file has the old contents or the new ones, whole. No lock,
// descriptor or temporary file is left.
func TestFaults(t *testing.T) { fault.Explore(t, "faults", faults) }

func TestUnreadableLinkIsNotReplaced(t *testing.T) {
	fault.One(t, "faults", "write through a link", "readlinkat", "/link", unix.EIO)
}

// On a file system in user space, a signal can interrupt any call.
func TestInterruptedCallIsRepeated(t *testing.T) {
	fault.One(t, "faults", "write", "fgetxattr", "", unix.EINTR)
	fault.One(t, "faults", "write", "fremovexattr", "", unix.EINTR)
}

func TestNewFileHasItsOwnName(t *testing.T) {
	fault.One(t, "faults", "open to create", "fsync", "", unix.EIO)
	path := filepath.Join(t.TempDir(), "data")
	f, err := OpenFile(bg, path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	must(t, err)
	defer f.Close()
	if f.Name() != path {
		t.Error(f.Name())
	}
	other, err := os.Open(path)
	must(t, err)
	defer other.Close()
	if err := interlock.TryLock(other); !errors.Is(err, interlock.ErrLocked) {
		t.Error(err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("package os does not know that it is open for appending")
	}
}

const oldContents = `{"old":1}`

var newContents = `{"new":` + strings.Repeat("1", 5000) + `}`

var faults = fault.Scenarios{
	"read": func(c *fault.Case) {
		path := existing(c)
		c.Faults(func() {
			data, err := Read(bg, path)
			if check(c, err, path) && string(data) != oldContents {
				c.Errorf("read %q", data)
			}
		})
		wantContents(c, path, nil, oldContents)
		worksOn(c, path)
	},
	"read a locked file": func(c *fault.Case) {
		path := existing(c)
		c.Other("flock", path, "ex")
		c.Faults(func() {
			ctx, cancel := context.WithCancel(bg)
			defer cancel()
			c.WhenWaiting(cancel)
			if _, err := Read(ctx, path); check(c, err, path, context.Canceled) {
				c.Errorf("read a locked file")
			}
		})
		c.Other("close", path)
		worksOn(c, path)
	},
	"write": func(c *fault.Case) { replaceWithFaults(c, existing(c)) },
	"write over a file of another user": func(c *fault.Case) {
		path := existing(c)
		if os.Getuid() == 0 {
			c.Must(os.Chown(path, 1, 2))
			c.Must(os.Chmod(path, 0o640|fs.ModeSetuid))
		}
		before, err := os.Stat(path)
		c.Must(err)
		replaceWithFaults(c, path)
		if after, err := os.Stat(path); err != nil || ownerOf(after) != ownerOf(before) || after.Mode() != before.Mode() {
			c.Errorf("%v, not %v: %v", after, before, err)
		}
	},
	"write over an access control list": func(c *fault.Case) {
		path := existing(c)
		list := acl(7, 4) // With this one, the mode stays 0640.
		has := unix.Setxattr(path, aclAccess, list, 0) == nil
		replaceWithFaults(c, path)
		if c.HasFailed("fgetxattr", unix.ENODATA, unix.ENOTSUP) { // "There is no list."
			return
		}
		if n, err := unix.Getxattr(path, aclAccess, nil); has && (err != nil || n != len(list)) {
			c.Errorf("the access control list is lost: %d, %v", n, err)
		}
	},
	"write through a link": func(c *fault.Case) {
		path := existing(c)
		link := c.Path("link")
		c.Must(os.Symlink("data", link))
		var err error
		c.Faults(func() {
			err = Write(bg, link, []byte(newContents), 0o600)
			check(c, err, link)
		})
		if target, readErr := os.Readlink(link); readErr != nil {
			c.Errorf("%s is no longer a link: %s, %v", link, target, readErr)
		}
		wantContents(c, path, err, oldContents, newContents)
		c.Only("data", "link")
	},
	"write without sync": func(c *fault.Case) {
		path := existing(c)
		var err error
		c.Faults(func() {
			err = Write(WithoutSync(bg), path, []byte(newContents), 0o600)
			check(c, err, path)
		})
		wantContents(c, path, err, oldContents, newContents)
		worksOn(c, path)
	},
	"try to write": func(c *fault.Case) {
		path := existing(c)
		var err error
		c.Faults(func() {
			err = TryWrite(path, []byte(newContents), 0o600)
			check(c, err, path)
		})
		wantContents(c, path, err, oldContents, newContents)
		worksOn(c, path)
	},
	"create": func(c *fault.Case) {
		path := c.Path("data")
		createWithFaults(c, path, newContents, func() error { return Write(bg, path, []byte(newContents), 0o640) })
	},
	"create where there are no hard links": func(c *fault.Case) {
		path := c.Path("data")
		createWithFaults(c, path, newContents, func() error {
			r := newRequest(bg, "write", path, 0o640)
			f, err := r.open(os.O_RDWR, func(path string) (*file, error) { return r.createEmpty(path, os.O_RDWR) })
			if err == nil {
				f.uncreate()
				err = pathError("write", path, f.Close())
			}
			if err != nil {
				return err
			}
			return Write(bg, path, []byte(newContents), 0o640)
		})
	},
	"append": func(c *fault.Case) {
		path := existing(c)
		var err error
		c.Faults(func() {
			err = Append(bg, path, []byte(newContents), 0o600)
			check(c, err, path)
		})
		wantContents(c, path, err, oldContents, oldContents+newContents)
		worksOn(c, path)
	},
	"append to nothing": func(c *fault.Case) {
		path := c.Path("data")
		createWithFaults(c, path, newContents, func() error { return Append(bg, path, []byte(newContents), 0o640) })
	},
	"transform": func(c *fault.Case) {
		path := existing(c)
		var err error
		c.Faults(func() {
			err = Transform(bg, path, 0o600, func(old []byte) ([]byte, error) {
				if string(old) != oldContents {
					c.Errorf("given %q", old)
				}
				c.Locked(path, true)
				return []byte(newContents), nil
			})
			check(c, err, path)
		})
		wantContents(c, path, err, oldContents, newContents)
		worksOn(c, path)
	},
	"transform nothing": func(c *fault.Case) {
		path := c.Path("data")
		createWithFaults(c, path, newContents, func() error {
			return Transform(bg, path, 0o640, func([]byte) ([]byte, error) { return []byte(newContents), nil })
		})
	},
	"failing transform": func(c *fault.Case) {
		path := c.Path("data")
		failure := errors.New("failed")
		c.Faults(func() {
			check(c, Transform(bg, path, 0o640, func([]byte) ([]byte, error) { return nil, failure }), path, failure)
		})
		if !c.HasFailed("unlinkat") && !c.HasFailed("fstat") && !c.HasFailed("newfstatat") {
			// Without fstat, the package does not know that the
			// file is its own.
			c.Only()
		}
	},
	"transform JSON": func(c *fault.Case) {
		path := existing(c)
		var err error
		c.Faults(func() {
			err = TransformJSON(bg, path, 0o600, func(v *map[string]int) error {
				(*v)["new"] = 2
				return nil
			})
			check(c, err, path)
		})
		wantContents(c, path, err, oldContents, "{\n\t\"new\": 2,\n\t\"old\": 1\n}\n")
		worksOn(c, path)
	},
	"overwrite, longer":  func(c *fault.Case) { overwriteWithFaults(c, newContents) },
	"overwrite, shorter": func(c *fault.Case) { overwriteWithFaults(c, "new") },
	"open to truncate": func(c *fault.Case) {
		path := existing(c)
		contents := []string{oldContents}
		var err error
		c.Faults(func() {
			var f *File
			if f, err = OpenFile(bg, path, os.O_RDWR|os.O_TRUNC, 0); check(c, err, path) {
				contents = []string{"", "new"}
				c.Locked(path, true)
				_, err = f.Write([]byte("new"))
				check(c, err, path)
				check(c, f.Close(), path)
			}
		})
		wantContents(c, path, err, contents...)
		worksOn(c, path)
	},
	"open to create": func(c *fault.Case) {
		path := c.Path("data")
		createWithFaults(c, path, "", func() error {
			f, err := OpenFile(bg, path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
			if err == nil {
				c.Locked(path, true)
				err = f.Close()
			}
			return err
		})
	},
	"open to create and read": func(c *fault.Case) {
		path := c.Path("data")
		createWithFaults(c, path, "", func() error {
			f, err := OpenFile(bg, path, os.O_RDONLY|os.O_CREATE, 0o640)
			if err == nil {
				c.Locked(path, false)
				err = f.Close()
			}
			return err
		})
	},
	"open to read": func(c *fault.Case) {
		path := existing(c)
		c.Faults(func() {
			f, err := OpenFile(bg, path, os.O_RDONLY, 0)
			if check(c, err, path) {
				data, err := io.ReadAll(f)
				if check(c, err, path) && string(data) != oldContents {
					c.Errorf("read %q", data)
				}
				check(c, f.Close(), path)
			}
		})
		worksOn(c, path)
	},
}

// check is c.Check with two more errors that it accepts: that another process
// has locked a new temporary file, and that the file is no longer at its path.
func check(c *fault.Case, err error, path string, others ...error) bool {
	if c.HasFailed("flock", unix.EWOULDBLOCK, unix.EACCES, unix.EDEADLK) {
		others = append(others, interlock.ErrLocked)
	}
	if c.HasFailed("newfstatat", unix.ENOENT) || c.HasFailed("fstat", unix.ENOENT, unix.ESTALE) {
		others = append(others, errReplaced)
	}
	return c.Check(err, path, others...)
}

func ownerOf(info fs.FileInfo) [2]uint32 {
	st := info.Sys().(*syscall.Stat_t)
	return [2]uint32{st.Uid, st.Gid}
}

func existing(c *fault.Case) (path string) {
	path = c.Write("data", oldContents, 0o640)
	c.Must(os.Chmod(path, 0o640))
	return path
}

// wantContents fails unless the file at path has the last of the contents, or
// after an error the first.
func wantContents(c *fault.Case, path string, err error, contents ...string) {
	data, readErr := os.ReadFile(path)
	c.Must(readErr)
	got, want := string(data), contents[len(contents)-1]
	if err != nil {
		want = contents[0]
		// After the replacement, syncing the directory or closing the
		// new file can fail. Then the new contents are in place in
		// spite of the error.
		if c.HasFailed("openat") || c.HasFailed("fsync") || c.HasFailed("flock") || c.HasFailed("close") {
			for _, other := range contents {
				if got == other {
					want = other
				}
			}
		}
	}
	if got != want {
		c.Errorf("after the error %v the file contains %.20q (%d bytes)", err, got, len(got))
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		c.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func replaceWithFaults(c *fault.Case, path string) {
	var err error
	c.Faults(func() {
		err = Write(bg, path, []byte(newContents), 0o600)
		check(c, err, path)
	})
	wantContents(c, path, err, oldContents, newContents)
	worksOn(c, path)
}

func overwriteWithFaults(c *fault.Case, contents string) {
	path := existing(c)
	var err error
	c.Faults(func() {
		r := newRequest(bg, "write", path, 0)
		err = r.change(os.O_RDWR, nil, func(f *file) error { return r.overwrite(f, []byte(contents)) })
		check(c, err, path)
	})
	wantContents(c, path, err, oldContents, contents)
	worksOn(c, path)
}

// createWithFaults calls create, which creates the file at path, or fails and
// leaves none.
func createWithFaults(c *fault.Case, path, contents string, create func() error) {
	old := syscall.Umask(0o022)
	defer syscall.Umask(old)
	var err error
	c.Faults(func() {
		err = create()
		check(c, err, path)
	})
	if _, statErr := os.Lstat(path); err == nil || statErr == nil {
		if err != nil && !c.HasFailed("openat") && !c.HasFailed("fsync") && !c.HasFailed("flock") && !c.HasFailed("close") {
			c.Errorf("there is a file in spite of the error %v", err)
		}
		wantContents(c, path, nil, contents)
	}
	worksOn(c, path)
}

// worksOn fails unless the file at path can be written and read, and is alone
// in its directory.
func worksOn(c *fault.Case, path string) {
	c.Free(path)
	if c.HasFailed("unlinkat") {
		// A temporary file that cannot be removed stays.
		for _, name := range c.Files() {
			if strings.HasPrefix(name, ".data.lockedfile-") {
				c.Must(os.Remove(c.Path(name)))
			}
		}
	}
	c.Only("data")
	c.Must(Write(bg, path, []byte("works"), 0o600))
	data, err := Read(bg, path)
	if err != nil || string(data) != "works" {
		c.Errorf("%q, %v", data, err)
	}
	c.Only("data")
}
