package locktest

import "time"

// SetTimeout sets how long tests wait for an event that must happen.
func SetTimeout(d time.Duration) { timeout = d }
