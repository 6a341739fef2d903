package locktest

import "time"

// SetPatience is for tests of what never happens.
func SetPatience(d time.Duration) { patience = d }
