package interlock

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// FuzzPath checks that for any name there is either a lock at exactly that
// path, or an error that names it. Nothing else in the directory changes.
func FuzzPath(f *testing.F) {
	for _, name := range []string{"lock", "sub/lock", "missing/lock", "sub", "sub/", "./lock", "sub/../lock", "link/lock", "link", "fifo",
		"", ".", "\x00", "a\x00b", "ä\xff\n", strings.Repeat("x", 255), strings.Repeat("x", 256), strings.Repeat("y/", 2100), "COM1", "lock:stream", "a ", "a."} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if !filepath.IsLocal(name) && name != "" {
			t.Skip("outside the directory")
		}
		dir := t.TempDir()
		must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
		if runtime.GOOS != "windows" {
			must(t, os.Symlink("sub", filepath.Join(dir, "link")))
			must(t, os.Symlink("missing", filepath.Join(dir, "dangling")))
		}
		before := tree(t, dir)
		path := dir + string(filepath.Separator) + name
		if name == "" {
			path = name
		}
		m, err := NewFileRWMutex(path)
		if err != nil {
			var pathErr *fs.PathError
			if !errors.As(err, &pathErr) || pathErr.Path != path {
				t.Fatalf("the error %v does not name %q", err, path)
			}
			if after := tree(t, dir); after != before {
				t.Fatalf("an error, and the directory changed from %q to %q", before, after)
			}
			return
		}
		if !m.TryLock() {
			t.Fatal("the new lock is not free")
		}
		other, err := NewFileRWMutex(path)
		must(t, err)
		if other.TryRLock() {
			t.Fatal("a reader beside a writer")
		}
		must(t, other.Close())
		m.Unlock()
		must(t, m.Close())
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() || info.Size() != 0 {
			t.Fatalf("no lock file: %v, %v", info, err)
		}
		must(t, os.Remove(path))
		if after := tree(t, dir); after != before {
			t.Fatalf("the rest of the directory changed from %q to %q", before, after)
		}
	})
}

// tree lists the files below dir.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			b.WriteString(d.Type().String() + path + "\n")
		}
		return err
	}))
	return b.String()
}

// FuzzOptions checks that constructors refuse invalid options, and create
// nothing then.
func FuzzOptions(f *testing.F) {
	f.Add(uint32(0o600), int64(1), int64(1))
	f.Add(uint32(0), int64(0), int64(1))
	f.Add(uint32(fs.ModeDir), int64(2), int64(1))
	f.Add(^uint32(0), int64(-1), int64(-1))
	f.Fuzz(func(t *testing.T, perm uint32, shortest, longest int64) {
		valid := fs.FileMode(perm)&^fs.ModePerm == 0 && 0 < shortest && shortest <= longest
		opts := []Option{WithPerm(fs.FileMode(perm)), WithPollInterval(time.Duration(shortest), time.Duration(longest))}
		dir := t.TempDir()
		path := filepath.Join(dir, "lock")
		m, err := NewFileRWMutex(path, opts...)
		if err == nil {
			must(t, m.Close())
		}
		r, rErr := NewFileRMutex(path, opts...)
		if rErr == nil {
			must(t, r.Close())
		}
		s, sErr := NewFileSemaphore(filepath.Join(dir, "sem"), 1, opts...)
		if sErr == nil {
			must(t, s.Close())
		}
		for _, err := range []error{err, rErr, sErr} {
			if !valid && !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%o, %d, %d: %v", perm, shortest, longest, err)
			}
			// A file that was created without the right to read it
			// cannot be opened again.
			if valid && perm&0o600 == 0o600 && err != nil {
				t.Errorf("%o, %d, %d: %v", perm, shortest, longest, err)
			}
		}
		if left, err := os.ReadDir(dir); !valid && (err != nil || len(left) > 0) {
			t.Errorf("created in spite of an error: %v, %v", left, err)
		}
	})
}

// FuzzSizeRecord checks what NewFileSemaphore does with the contents of a gate
// file. If they are a size, or what a crash can leave of one, the new size
// takes effect, and other sizes are refused. Any other contents are an error,
// and stay.
func FuzzSizeRecord(f *testing.F) {
	for _, record := range []string{"", "4\n", "-1\n", "00000000000000000004\n", "4x", "\x00\x00", " 4 ", "3" + strings.Repeat(" ", 18) + "\n",
		"1\x00 2\n", strings.Repeat("\x00", 20), strings.Repeat("\x00", 21), strings.Repeat("9", 20), strings.Repeat("3", 21), "3" + strings.Repeat(" ", 18) + "\nprecious"} {
		f.Add([]byte(record), int64(3))
	}
	f.Add([]byte("4\n"), int64(0))
	f.Fuzz(func(t *testing.T, record []byte, size int64) {
		if size < 0 {
			t.Skip("not a size")
		}
		name := filepath.Join(t.TempDir(), "sem")
		must(t, os.WriteFile(name+".gate.lock", record, 0o600))
		s, err := NewFileSemaphore(name, size)
		if !sizeRecord.Match(record) {
			var pathErr *fs.PathError
			if !errors.As(err, &pathErr) || pathErr.Path != name+".gate.lock" || !errors.Is(err, errNotSize) {
				t.Errorf("%q: %v", record, err)
			}
			if data := Must(os.ReadFile(name + ".gate.lock")); !bytes.Equal(data, record) {
				t.Errorf("the contents changed from %q to %q", record, data)
			}
			return
		}
		must(t, err)
		defer func() { must(t, s.Close()) }()
		if size > 0 {
			if !s.TryAcquire(1) {
				t.Fatal("no unit is free")
			}
			s.Release(1)
		}
		if size != 7 {
			if _, err := NewFileSemaphore(name, 7); err == nil || !strings.Contains(err.Error(), "size 7") {
				t.Fatalf("another size: %v", err)
			}
		}
		same, err := NewFileSemaphore(name, size)
		must(t, err)
		must(t, same.Close())
	})
}

// sizeRecord matches a size, and what a crash can leave of one.
var sizeRecord = regexp.MustCompile(`\A[0-9 \n\x00]{0,20}\z`)
