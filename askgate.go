//go:build windows || (unix && !aix && (!linux || interlock_bsd))

package interlock

import "time"

// askGate is gateTaken where only standing at the gate tells whether somebody else does. Who asks
// so must not be taken for somebody who waits, so a refusal is believed only if it lasts: longer than such an
// instant, and not in step with others who ask. Only who loses the processor in that instant, and for
// longer, is mistaken.
func (h handle) askGate(m hold) bool {
	for pause := 5 * time.Microsecond; ; pause *= 2 {
		err := h.tryGate(m)
		if err == nil {
			h.leaveGate()
		}
		if err != ErrLocked || pause > 100*time.Microsecond {
			return err == ErrLocked
		}
		time.Sleep(jitter(pause))
	}
}
