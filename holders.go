package interlock

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/interlock-go/interlock/internal/proclocks"
)

// A Holder is a process that holds a lock or waits for it.
type Holder struct {
	PID     int    // 0 if the system does not tell
	Command string // name of the process's command, if it can be read
	Shared  bool   // the lock is a read lock
	Waiting bool   // the process does not hold the lock yet
}

// Holders returns the processes that hold the lock on the file at path,
// followed by those that wait for it in the kernel. The file may be the lock
// file of a [FileRWMutex] or [FileRMutex], a slot file of a [FileSemaphore], or
// a file locked by [Lock].
//
// The result is a hint for people: it may be out of date when Holders returns.
// The PID is that of the process that asked for the lock. If that process
// passed the open file on and ended, the PID may now belong to an unrelated
// process. A waiter for the lock itself has a PID: the first waiter, the readers
// that wait together with it, and users of [Lock] or flock(1). A waiter behind
// them at the gate has none.
//
// A process that holds the lock through several objects is listed once. So are
// all goroutines that wait for one FileRWMutex. Processes in other PID
// namespaces may be missing, and so may waiters on file systems that are not
// known to be local. Locks acquired by fcntl(2) are not listed.
//
// Holders needs Linux and /proc. On other systems, the error matches
// [errors.ErrUnsupported]. Every error is an [*fs.PathError].
func Holders(path string) ([]Holder, error) {
	locks, err := proclocks.Of(path)
	if err != nil {
		return nil, errorAt("holders", path, err)
	}
	var all []Holder
	for _, l := range locks {
		// The first waiter waits for the lock, and the others for the
		// gate.
		atGate := l.Kind == "OFDLCK" && l.Waiting && l.Start == farByte
		if l.Kind != "FLOCK" && !atGate {
			continue
		}
		h := Holder{PID: l.PID, Shared: l.Shared, Waiting: l.Waiting}
		if h.PID != 0 {
			comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", h.PID))
			h.Command = strings.TrimSuffix(string(comm), "\n")
		}
		all = append(all, h)
	}
	rank := func(h Holder) int {
		switch {
		case !h.Waiting:
			return 0
		case h.PID != 0:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(all, func(a, b Holder) int { return cmp.Compare(rank(a), rank(b)) })
	return all, nil
}
