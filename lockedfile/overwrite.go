package lockedfile

import (
	"bytes"
	"fmt"
	"io"
)

// overwrite writes data into f. If that fails, it writes the old contents back.
func (r *request) overwrite(f *file, data []byte) error {
	if err := f.check(); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	old := make([]byte, info.Size())
	if _, err := f.ReadAt(old, 0); err != nil && len(old) > 0 {
		return err
	}
	err = f.rewrite(data, len(old))
	if err == nil {
		err = r.flush(f.File)
	}
	if err == nil {
		return nil
	}
	undoErr := f.Truncate(info.Size())
	if _, err := f.WriteAt(old, 0); err != nil && undoErr == nil && !f.contains(old) {
		undoErr = err
	}
	if undoErr == nil && r.sync {
		undoErr = f.Sync()
	}
	return undone(err, undoErr)
}

// rewrite changes the contents of f from size bytes to data.
//
// It adds bytes first, so that a full disk shows before an old byte is lost. It
// cuts bytes off last, so that no other process can take the space that
// overwrite may need to write them back.
func (f *file) rewrite(data []byte, size int) error {
	common := min(len(data), size)
	if len(data) > size {
		if _, err := f.WriteAt(data[common:], int64(common)); err != nil {
			return err
		}
	}
	if _, err := f.WriteAt(data[:common], 0); err != nil {
		return err
	}
	if len(data) < size {
		return f.Truncate(int64(len(data)))
	}
	return nil
}

// contains reports whether f contains data. On a full disk, a hole in the old
// contents cannot be written back. It need not be: nothing changed it.
func (f *file) contains(data []byte) bool {
	got, err := io.ReadAll(io.NewSectionReader(f, 0, int64(len(data))))
	return err == nil && bytes.Equal(got, data)
}

// undone returns the error of a change that was undone, or of one that could
// not be undone because of undoErr.
func undone(err, undoErr error) error {
	if undoErr == nil {
		return err
	}
	return fmt.Errorf("%w; the old contents could not be restored: %w", err, undoErr)
}
