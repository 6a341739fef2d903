//go:build linux

package proof

import (
	"fmt"
	"slices"
	"time"
)

// A distribution contains the lengths of waits, sorted.
type distribution []time.Duration

func (d distribution) String() string {
	if len(d) == 0 {
		return "no waits"
	}
	at := func(share float64) time.Duration { return d[int(share*float64(len(d)-1))].Round(time.Microsecond) }
	return fmt.Sprintf("%d waits: median %v, 90 %% %v, 99 %% %v, 99.9 %% %v, longest %v",
		len(d), at(.5), at(.9), at(.99), at(.999), at(1))
}

// A summary counts the outcomes of all histories of one workload.
type summary struct {
	had, locked, ended, failed, killed int
	did                                map[string]int
	waits                              distribution
}

func (s *summary) add(all []*attempt, n *nemesis) {
	if s.did == nil {
		s.did = make(map[string]int)
	}
	for what, times := range n.did {
		s.did[what] += times
	}
	for _, st := range all {
		switch {
		case st.killed:
			s.killed++
		case st.how == openLock:
		case st.outcome == done:
			s.had++
		case st.outcome == locked:
			s.locked++
		case st.outcome == ended:
			s.ended++
		default:
			s.failed++
		}
		if n.queues(st.process) && st.acquired != 0 && st.how == waitForever {
			s.waits = append(s.waits, time.Duration(st.acquired-st.called))
		}
	}
	slices.Sort(s.waits)
}

func (s *summary) String() string {
	return fmt.Sprintf("attempts: %d had the lock, %d tries failed, %d contexts ended, %d had no descriptors, %d were killed"+
		"\n\tnemesis: %v\n\t%v",
		s.had, s.locked, s.ended, s.failed, s.killed, s.did, s.waits)
}
