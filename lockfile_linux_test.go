//go:build !interlock_bsd

package interlock

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/systemtest/kit"
	"golang.org/x/sys/unix"
)

// fileSystems returns a directory on each file system that can be tested here.
func fileSystems(t *testing.T) map[string]string {
	dirs := map[string]string{"TMPDIR": t.TempDir()}
	if os.Getuid() != 0 {
		return dirs
	}
	base := mount(t, "tmpfs", "tmpfs", 0, "")
	dirs["tmpfs"] = base
	for _, d := range []string{"lower", "upper", "work"} {
		must(t, os.Mkdir(filepath.Join(base, d), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(base, "lower", "lock"), nil, 0o644)) // is copied up
	dirs["overlay"] = mount(t, "overlay", "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", base))
	dirs["ramfs"] = mount(t, "none", "ramfs", 0, "")
	return dirs
}

// onLocalFileSystems runs a test on each file system that counts as local.
func onLocalFileSystems(t *testing.T, test func(t *testing.T, path string)) {
	for name, dir := range fileSystems(t) {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "lock")
			if !lockFileAt(t, path).file.local {
				t.Skip("does not count as local")
			}
			test(t, path)
		})
	}
}

func TestLocalFileSystemsAreRecognized(t *testing.T) {
	known := []string{"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlay"}
	for name, dir := range fileSystems(t) {
		kind := kit.FileSystem(t, dir)
		want := slices.Contains(known, kind) && localFileSystems != nil
		if got := lockFileAt(t, filepath.Join(dir, "lock")).file.local; got != want {
			t.Errorf("%s (%s) counts as local: %t, want %t", name, kind, got, want)
		}
	}
}

// On a local file system the gate does not see the lock.
func TestGateDoesNotSeeLock(t *testing.T) {
	onLocalFileSystems(t, func(t *testing.T, path string) {
		holder, f := lockFileAt(t, path), lockFileAt(t, path)
		must(t, holder.try(t.Context(), exclusive))
		if taken(f, exclusive) {
			t.Error("the lock looks like a process at the gate")
		}
		must(t, f.announce(t.Context(), exclusive))
		if !taken(holder, shared) {
			t.Error("the holder does not see a writer at the gate")
		}
		f.withdraw()
		if taken(holder, exclusive) {
			t.Error("the gate is still taken")
		}
		holder.unlock()
	})
}

// settledAge returns the age from which a ctime proves something.
func settledAge(t *testing.T, f *lockFile) time.Duration {
	t.Helper()
	id, err := f.file.identity()
	must(t, err)
	if id.changed%int64(time.Second) == 0 { // whole seconds, as on ext4 with small inodes
		return coarseSettled
	}
	return ctimeSettled
}

// Every change of a name shows in the ctime, where lockFile relies on that.
func TestRenameChangesCtime(t *testing.T) {
	onLocalFileSystems(t, func(t *testing.T, path string) {
		f := lockFileAt(t, path)
		if !f.file.marked {
			t.Skip("lockFile does not rely on ctimes here")
		}
		identity := func() identity {
			id, err := f.file.identity()
			must(t, err)
			return id
		}
		time.Sleep(settledAge(t, f))
		before := identity()
		must(t, os.Rename(path, path+".old"))
		after := identity()
		if before.changed == after.changed {
			t.Error("a rename does not change the ctime")
		}
		time.Sleep(settledAge(t, f))
		must(t, os.WriteFile(path, nil, 0o600))
		must(t, unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, path+".old", unix.RENAME_EXCHANGE))
		if before, after = after, identity(); before.changed == after.changed {
			t.Error("an exchange does not change the ctime")
		}
	})
}

// An old ctime proves for a while that the file is at its path, and a young one
// does not.
func TestCtimeSettles(t *testing.T) {
	path := lockPath(t)
	f := lockFileAt(t, path)
	if !f.file.local || !f.file.marked {
		t.Skip("lockFile does not rely on ctimes here")
	}
	must(t, os.Chmod(path, 0o600))
	must(t, f.look(f.file))
	if f.knownAt != never {
		t.Error("a ctime that has just changed proves that the file is at its path")
	}
	time.Sleep(2 * settledAge(t, f))
	must(t, f.look(f.file))
	if f.knownAt == never {
		t.Error("an old ctime does not prove that the file is at its path")
	}
	// As long as it does, a rename still shows.
	must(t, os.Rename(path, path+".old"))
	if f.tryNow(exclusive) {
		t.Error("tryNow locked a file that was renamed")
		f.unlock()
	}
	must(t, os.Rename(path+".old", path))
	time.Sleep(2 * settledAge(t, f))
	must(t, f.look(f.file))
	if !f.tryNow(exclusive) {
		t.Fatal("tryNow failed for a file that is back")
	}
	f.unlock()
	// The directory is renamed, which leaves the ctime alone.
	dir := filepath.Dir(path)
	must(t, os.Rename(dir, dir+".old"))
	defer os.Rename(dir+".old", dir)
	time.Sleep(2 * pathCheckInterval)
	wantErr(t, "look", f.look(f.file), errStale)
}

// A process that cannot open the gate stands there by the descriptor of its
// lock.
func TestOwnGate(t *testing.T) {
	path := lockPath(t)
	f, other, probe := lockFilesAt(t, path)
	if !f.file.local {
		t.Skip("the gate is a sibling file")
	}
	for range 3 {
		must(t, other.announce(t.Context(), exclusive))
		restore := noDescriptors(t)
		waiter := start(func() error { return f.announce(t.Context(), exclusive) })
		pending(t, waiter)
		other.withdraw()
		must(t, finish(t, waiter))
		restore()
		if !f.ownGate || !taken(probe, shared) {
			t.Fatal("the process does not stand at the gate by its own descriptor")
		}
		f.withdraw()
		if f.ownGate || taken(probe, exclusive) {
			t.Fatal("the process still stands at the gate")
		}
	}
}

// The last reader of a process may unlock the file while the next waiter
// announces itself by the same descriptor, even if the file cannot be unlocked
// and is closed.
func TestUnlockDuringAnnounce(t *testing.T) {
	for range rounds(300) {
		path := lockPath(t)
		f, other, probe := lockFilesAt(t, path)
		if !f.file.local {
			t.Skip("the gate is a sibling file")
		}
		must(t, f.try(t.Context(), shared))
		restore := noDescriptors(t)
		breaks := time.Now().Nanosecond()%2 == 0
		announced := start(func() error { return f.announce(t.Context(), exclusive) })
		if breaks {
			restore()
			breakUnlock(t, f)
		}
		f.unlock()
		if err := finish(t, announced); err != nil && err != errStale {
			t.Fatal(err)
		}
		restore()
		f.withdraw()
		f.repair()
		if taken(probe, exclusive) {
			t.Fatal("the process still stands at the gate")
		}
		must(t, other.try(t.Context(), exclusive))
		other.unlock()
		must(t, f.try(t.Context(), exclusive))
		f.unlock()
	}
}

// The number of a file that was closed, because it could not be unlocked, may
// belong to any other file.
func TestClosedFileIsNotAnnounced(t *testing.T) {
	path := lockPath(t)
	f := lockFileAt(t, path)
	if !f.file.local {
		t.Skip("the gate is a sibling file")
	}
	must(t, f.try(t.Context(), shared))
	other := Must(os.Create(path + ".other"))
	defer other.Close()
	number := f.file.fd
	f.kill()
	must(t, unix.Dup3(int(other.Fd()), number, unix.O_CLOEXEC))
	defer unix.Close(number)
	wantErr(t, "announceOwn", f.announceOwn(t.Context(), exclusive), errStale)
	if l := kernelLocks(t, other.Name()); len(l) != 0 {
		t.Errorf("the other file has the locks %+v, want none", l)
	}
}
