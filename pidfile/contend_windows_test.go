package pidfile

import (
	"fmt"
	"time"

	"golang.org/x/sys/windows"
)

// mark makes a marker: a file that is open and shared with no other process. It
// fails if another process has it.
func mark(path string) (unmark func() error, err error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		h, err := windows.CreateFile(name, windows.GENERIC_WRITE, 0, nil, windows.OPEN_ALWAYS, windows.FILE_ATTRIBUTE_NORMAL, 0)
		if err == nil {
			return func() error { return windows.CloseHandle(h) }, nil
		}
		// A killed process may take a moment to end.
		if time.Since(begin) > 10*time.Second {
			return nil, fmt.Errorf("another process has the marker: %w", err)
		}
	}
}
