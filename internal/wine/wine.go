// Package wine lets tests skip what Wine does differently from Windows.
package wine

import "testing"

// Skip skips the test under Wine. The reason completes a sentence that begins
// with "Wine".
func Skip(t testing.TB, reason string) {
	t.Helper()
	if Here() {
		t.Skip("Wine " + reason)
	}
}
