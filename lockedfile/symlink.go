package lockedfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// maxLinks is the number of symbolic links after which a path is taken as a
// loop.
const maxLinks = 255

// follow returns where the symbolic link at path leads, whether or not there is
// a file. If there is no link at path, it returns path.
func follow(path string) (string, error) { return followIf(nil, path) }

// followToCreate is like follow, but fails for a link through which no file may
// be created.
func followToCreate(path string) (string, error) { return followIf(mayFollow, path) }

// followIf follows links for which may returns nil, or all if may is nil. It
// calls may after it read a link, with what os.Lstat returned before, or nil.
func followIf(may func(link string, before fs.FileInfo) error, path string) (string, error) {
	for range maxLinks {
		var before fs.FileInfo
		if may != nil {
			before, _ = os.Lstat(path)
		}
		target, err := os.Readlink(path)
		if err != nil {
			return path, notALink(path, err)
		}
		if may != nil {
			if err := may(path, before); err != nil {
				return path, err
			}
		}
		if !filepath.IsAbs(target) {
			// Do not clean it: if dir is a symbolic link, dir/../x
			// is not x.
			dir, _ := filepath.Split(path)
			target = dir + target
		}
		path = target
	}
	return path, nil
}

// notALink returns nil if reading a link at path failed with readErr because
// there is none. A link that cannot be read must not pass for the file itself.
func notALink(path string, readErr error) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return readErr
	}
	return err
}
