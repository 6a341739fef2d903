//go:build linux

package proof

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCheck checks correct histories, and similar ones that are wrong.
func TestCheck(t *testing.T) {
	const size = 3
	// at returns an attempt that lasts from 10·n to 10·n+9.
	at := func(n int64, weight int64, value, saw uint64) *attempt {
		return &attempt{
			process:  int(n),
			how:      waitForever,
			weight:   weight,
			value:    value,
			saw:      saw,
			sawKnown: true,
			called:   10 * n,
			acquired: 10*n + 1,
			release:  10*n + 8,
			ended:    10*n + 9,
			outcome:  done,
		}
	}
	long := func(s *attempt, by int64) *attempt { s.release += by; s.ended += by; return s }
	killed := func(s *attempt) *attempt { s.killed, s.sawKnown, s.outcome = true, false, ""; return s }
	failed := func(s *attempt, outcome string) *attempt {
		s.how, s.acquired, s.release, s.outcome = tryOnce, 0, 0, outcome
		return s
	}
	hasFew := func(s *attempt) *attempt { s.few = true; return s }
	for name, c := range map[string]struct {
		history []*attempt
		right   bool
	}{
		"OneAfterTheOther":   {[]*attempt{at(1, size, 7, 0), at(2, size, 8, 7), at(3, 1, 0, 8)}, true},
		"LostUpdate":         {[]*attempt{at(1, size, 7, 0), at(2, size, 8, 0), at(3, 1, 0, 8)}, false},
		"StaleRead":          {[]*attempt{at(1, size, 7, 0), at(2, 1, 0, 0)}, false},
		"ReadersShare":       {[]*attempt{long(at(1, 1, 0, 0), 20), at(2, 1, 0, 0)}, true},
		"WriterAndReader":    {[]*attempt{long(at(1, 1, 0, 0), 20), at(2, size, 7, 0)}, false},
		"TwoWriters":         {[]*attempt{long(at(1, size, 7, 8), 20), at(2, size, 8, 0)}, false},
		"AllUnitsInUse":      {[]*attempt{long(at(1, 2, 0, 0), 20), at(2, 1, 0, 0)}, true},
		"TooManyUnitsInUse":  {[]*attempt{long(at(1, 2, 0, 0), 20), at(2, 2, 0, 0)}, false},
		"KilledBeforeWrite":  {[]*attempt{killed(at(1, size, 7, 0)), at(20, size, 8, 0)}, true},
		"KilledAfterWrite":   {[]*attempt{killed(at(1, size, 7, 0)), at(20, size, 8, 7)}, true},
		"TryFailsOnFreeLock": {[]*attempt{failed(at(1, size, 7, 0), locked), at(deathDelay, size, 8, 0)}, false},
		"TryFailsOnHeldLock": {[]*attempt{long(at(1, 1, 0, 0), 20), failed(at(2, size, 7, 0), locked)}, true},
		"TryReadFailsBesideReader": {[]*attempt{
			{how: tryOnce, weight: 1, called: 10, acquired: 11, release: 30, ended: 31, outcome: done, sawKnown: true},
			failed(at(2, 1, 0, 0), locked),
		}, false},
		"WaitEndsWithoutCancel":     {[]*attempt{{how: waitForever, weight: 1, called: 10, ended: 20, outcome: ended}}, false},
		"Error":                     {[]*attempt{failed(at(1, size, 7, 0), "no locks available")}, false},
		"ErrorForLackOfDescriptors": {[]*attempt{hasFew(failed(at(1, size, 7, 0), "open: "+unix.EMFILE.Error()))}, true},
		"ErrorDespiteDescriptors":   {[]*attempt{failed(at(1, size, 7, 0), "open: "+unix.EMFILE.Error())}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := check(c.history, size, ""); (err == nil) != c.right {
				t.Error(err)
			}
		})
	}
}

// TestCheckOfJournals checks histories with kills. A killed process holds its
// lock until it is gone, and may acquire a lock after its kill event.
func TestCheckOfJournals(t *testing.T) {
	holder := "call 200 1 0 waits 3 7\nacquired 250 1 0\nrelease 380 1 0 0\nend 390 1 0 done\n"
	for name, c := range map[string]struct {
		journals string
		right    bool
	}{
		"OneHolder":                          {holder, true},
		"KilledBeforeItAcquires":             {holder + "call 260 2 0 waits 3 8\nkill 300 2\ndead 400 2\n", true},
		"AcquiresHeldLock":                   {holder + "call 260 2 0 waits 3 8\nacquired 270 2 0\nkill 300 2\ndead 400 2\n", false},
		"AcquiresHeldLockDuringKill":         {holder + "call 260 2 0 waits 3 8\nkill 300 2\nacquired 310 2 0\ndead 350 2\n", false},
		"CallsAndAcquiresHeldLockDuringKill": {holder + "kill 255 2\ncall 260 2 0 waits 3 8\nacquired 270 2 0\ndead 350 2\n", false},
		"DeadWhenNextAcquires":               {holder + "kill 190 2\ncall 195 2 0 waits 3 8\nacquired 197 2 0\ndead 260 2\n", true},
		"NextAcquiresAfterDeath":             {"call 10 2 0 waits 3 8\nacquired 20 2 0\nkill 30 2\ndead 40 2\n" + holder, true},
		"NextAcquiresBeforeDeath":            {"call 10 2 0 waits 3 8\nacquired 20 2 0\nkill 300 2\ndead 400 2\n" + holder, false},
		"FewDescriptors":                     {"few 1 2\ncall 10 2 0 waits 3 8\nmany 15 2\nend 20 2 0 open: too many open files\n", true},
		"DescriptorsRestored":                {"few 1 2\nmany 2 2\ncall 10 2 0 waits 3 8\nend 20 2 0 open: too many open files\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "journal.1"), []byte(c.journals), 0o600); err != nil {
				t.Fatal(err)
			}
			events, err := readJournals(dir)
			if err != nil {
				t.Fatal(err)
			}
			attempts, err := attemptsOf(events)
			if err != nil {
				t.Fatal(err)
			}
			if err := check(attempts, 3, ""); (err == nil) != c.right {
				t.Error(err)
			}
		})
	}
}
