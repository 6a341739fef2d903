package need

import "testing"

// A fake records which of its methods was called.
type fake struct {
	testing.TB
	called string
}

func (*fake) Helper()        {}
func (f *fake) Fatal(...any) { f.called = "Fatal" }
func (f *fake) Skip(...any)  { f.called += "Skip" }

func TestSkipFailsIfNeeded(t *testing.T) {
	for value, want := range map[string]string{"": "Skip", "1": "Fatal"} {
		t.Setenv("INTERLOCK_NEED", value)
		f := &fake{}
		if Skip(f, "nothing"); f.called[:len(want)] != want {
			t.Errorf("INTERLOCK_NEED=%s: %s, want %s", value, f.called, want)
		}
	}
}
