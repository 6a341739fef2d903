//go:build unix

package lockedfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/interlock-go/interlock/internal/atpath"
)

// mayFollow returns an error if no file may be created through a symbolic link.
// These are the links of other users in a sticky, world-writable directory,
// except those of the owner of the directory. Linux follows the same rule
// (fs.protected_symlinks, proc(5)).
//
// The caller read the link after os.Lstat returned before.
func mayFollow(link string, before fs.FileInfo) error {
	info, err := os.Lstat(link)
	if before == nil || errors.Is(err, fs.ErrNotExist) {
		return atpath.ErrAgain
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink == 0 || !os.SameFile(info, before) {
		return atpath.ErrAgain
	}
	path, _ := filepath.Split(link)
	dir, err := os.Stat(path + ".")
	if err != nil {
		return err
	}
	const sticky, worldWritable = fs.ModeSticky, 0o002
	if dir.Mode()&sticky == 0 || dir.Mode()&worldWritable == 0 {
		return nil
	}
	if owner := uid(info); owner != os.Geteuid() && owner != uid(dir) {
		return syscall.EACCES
	}
	return nil
}
