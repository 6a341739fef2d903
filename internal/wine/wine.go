// Package wine is for tests that run under Wine, which is not in everything like Windows.
package wine

import "testing"

// Skip skips a test under Wine, for the given reason.
func Skip(t testing.TB, reason string) {
	t.Helper()
	if Here() {
		t.Skip("Wine " + reason)
	}
}
