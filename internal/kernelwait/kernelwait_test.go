package kernelwait

import "testing"

func TestReserveCounts(t *testing.T) {
	restore := SetMaxWaits(2)
	for range 2 {
		if !Reserve() {
			t.Error("refused below the limit")
		}
	}
	if Reserve() {
		t.Error("allowed above the limit")
	}
	if n := Waits(); n != 2 {
		t.Errorf("%d waits, want 2", n)
	}
	Unreserve()
	if !Reserve() {
		t.Error("refused after Unreserve")
	}
	restore()
	if !Reserve() {
		t.Error("the limit was not restored")
	}
	for range 3 {
		Unreserve()
	}
	if n := Waits(); n != 0 {
		t.Errorf("%d waits, want 0", n)
	}
}
