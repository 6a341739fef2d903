package pidfile

import (
	"fmt"
	"time"

	"golang.org/x/sys/windows"
)

// mark makes a marker: a file that is open and shared with nobody. It fails if another has it.
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
		// One that was killed may take a moment to be gone.
		if time.Since(begin) > 10*time.Second {
			return nil, fmt.Errorf("somebody else is there: %w", err)
		}
	}
}
