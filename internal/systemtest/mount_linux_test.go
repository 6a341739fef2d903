package systemtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/need"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
	"golang.org/x/sys/unix"
)

// An existing file can be locked where nothing can be written. Waiters wake
// when the holder dies.
func TestReadOnlyFileSystem(t *testing.T) {
	kit.NeedRoot(t)
	for name, mount := range map[string]func(t *testing.T, source string) (dir string){
		"tmpfs": func(t *testing.T, source string) string {
			dir := kit.Mount(t, "tmpfs", "tmpfs", 0, "size=1m")
			kit.Must(t, os.WriteFile(filepath.Join(dir, "lock"), nil, 0o644))
			kit.Must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
			return dir
		},
		"bind mount": func(t *testing.T, source string) string {
			dir := kit.Mount(t, source, "", unix.MS_BIND, "")
			kit.Must(t, unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
			return dir
		},
		"squashfs": func(t *testing.T, source string) string {
			image := filepath.Join(t.TempDir(), "image")
			return kit.MountImage(t, image, exec.Command("mksquashfs", source, image, "-quiet", "-no-progress"))
		},
		"erofs": func(t *testing.T, source string) string {
			image := filepath.Join(t.TempDir(), "image")
			return kit.MountImage(t, image, exec.Command("mkfs.erofs", image, source))
		},
	} {
		t.Run(name, func(t *testing.T) {
			source := t.TempDir()
			kit.Must(t, os.WriteFile(filepath.Join(source, "lock"), nil, 0o644))
			path := filepath.Join(mount(t, source), "lock")
			var pathErr *fs.PathError
			if _, err := interlock.NewFileRWMutex(path + "2"); !errors.Is(err, unix.EROFS) || !errors.As(err, &pathErr) {
				t.Error(err)
			}
			m, p := newMutex(t, path), kit.StartServer(t, "locker", path)
			m.Lock()
			if h, err := interlock.Holders(path); err != nil || len(h) != 1 || h[0].PID != os.Getpid() {
				t.Errorf("Holders = %v, %v", h, err)
			}
			p.Say("lock")
			time.Sleep(kit.Moment)
			m.Unlock()
			p.Expect("lock ok")
			if m.TryRLock() {
				t.Error("a reader holds the lock beside a writer")
			}
			waiter := locking(t.Context(), m)
			kit.Pending(t, waiter)
			p.Kill()
			kit.Must(t, kit.Finish(t, waiter))
			m.Unlock()
		})
	}
}

// A rename is noticed although file times are whole seconds.
func TestRenameWithCoarseFileTimes(t *testing.T) {
	kit.NeedRoot(t)
	image := filepath.Join(t.TempDir(), "image")
	kit.Must(t, os.WriteFile(image, nil, 0o600))
	kit.Must(t, os.Truncate(image, 16<<20))
	dir := kit.MountImage(t, image, exec.Command("mkfs.ext4", "-q", "-I", "128", image))
	path := filepath.Join(dir, "lock")
	m, err := interlock.NewFileRWMutex(path)
	kit.Must(t, err)
	defer m.Close()
	for time.Now().Nanosecond() > 300e6 { // so that all happens in one second
		time.Sleep(10 * time.Millisecond)
	}
	kit.Must(t, os.Chmod(path, 0o600))
	settle(m)
	kit.Must(t, os.Rename(path, path+".old"))
	other, err := interlock.NewFileRWMutex(path)
	kit.Must(t, err)
	defer other.Close()
	other.Lock()
	if m.TryLock() {
		t.Error("two locks are held for one path")
	}
	other.Unlock()
}

// A bind mount of a single file shows it even after it was removed. Other
// processes use another file then, so its lock is refused.
func TestRemovedFileBehindBindMountIsRefused(t *testing.T) {
	kit.NeedRoot(t)
	dir := kit.OpenDir(t, 0o700)
	needGateInFile(t, dir) // only the path counts on other file systems
	file, path := filepath.Join(dir, "file"), filepath.Join(dir, "lock")
	for _, p := range []string{file, path} {
		kit.Must(t, os.WriteFile(p, nil, 0o600))
	}
	if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
		need.Skip(t, "cannot mount:", err)
	}
	defer unix.Unmount(path, unix.MNT_DETACH)
	m := newMutex(t, path)
	m.Lock()
	m.Unlock()
	kit.Must(t, os.Remove(file))
	time.Sleep(kit.Moment)
	_, newErr := interlock.NewFileRWMutex(path)
	for _, err := range []error{newErr, m.LockContext(t.Context()), m.TryRLockContext(t.Context())} {
		var pathErr *fs.PathError
		if !errors.As(err, &pathErr) || pathErr.Path != path || !strings.Contains(err.Error(), "deleted") {
			t.Errorf("%v, want an error that says that the file was deleted", err)
		}
	}
}

// The kernel may show a name for a directory that leads elsewhere, or nowhere.
func TestDirectoryWhoseNameLeadsElsewhere(t *testing.T) {
	t.Run("removed", func(t *testing.T) {
		base := t.TempDir()
		gone := filepath.Join(base, "dir")
		kit.Must(t, os.Mkdir(gone, 0o755))
		dir := interlock.Must(os.Open(gone))
		defer dir.Close()
		kit.Must(t, os.Remove(gone))
		kit.Must(t, os.Mkdir(gone+" (deleted)", 0o755)) // the kernel's name for the removed one
		if _, err := interlock.NewFileRMutex(fmt.Sprintf("/proc/self/fd/%d/lock", dir.Fd())); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		wantNoLockFile(t, base)
	})
	t.Run("hidden by a mount", func(t *testing.T) {
		kit.NeedRoot(t)
		dir := t.TempDir()
		t.Chdir(dir)
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			need.Skip(t, "cannot mount:", err)
		}
		defer unix.Unmount(dir, unix.MNT_DETACH)
		var pathErr *fs.PathError
		if _, err := interlock.NewFileRWMutex("lock"); !errors.As(err, &pathErr) || pathErr.Path != "lock" {
			t.Error(err)
		}
		wantNoLockFile(t, dir)
	})
}

// wantNoLockFile fails if a file named lock is below the directory.
func wantNoLockFile(t *testing.T, dir string) {
	t.Helper()
	if l := kit.Listing(t, dir); strings.Contains(l, "/lock ") {
		t.Errorf("a lock file was created:\n%s", l)
	}
}
