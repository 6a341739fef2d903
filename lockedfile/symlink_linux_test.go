package lockedfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/interlock-go/interlock/internal/atpath"
)

func TestNoFileThroughLinkOfOtherUser(t *testing.T) {
	needRoot(t)
	sticky, elsewhere := t.TempDir(), t.TempDir()
	must(t, os.Chmod(sticky, fs.ModeSticky|0o777))
	for op := range ops {
		for uid, may := range map[int]bool{0: true, uidNobody: false} {
			link, target := filepath.Join(sticky, fmt.Sprint(op, uid)), filepath.Join(elsewhere, fmt.Sprint(op, uid))
			must(t, os.Symlink(target, link))
			must(t, os.Lchown(link, uid, uid))
			err := ops[op](link)
			_, statErr := os.Lstat(target)
			created := statErr == nil
			if may != (err == nil) || may != created || !may && !errors.Is(err, fs.ErrPermission) {
				t.Errorf("%s by a link of %d: %v, %v", op, uid, err, statErr)
			}
		}
	}
}

func TestMayFollowDetectsChangedLink(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	wantAgain := func(before fs.FileInfo) {
		t.Helper()
		if err := mayFollow(link, before); err != atpath.ErrAgain {
			t.Error(err)
		}
	}
	must(t, os.Symlink("one", link))
	before, err := os.Lstat(link)
	must(t, err)
	must(t, mayFollow(link, before))
	wantAgain(nil) // It was not there before.
	must(t, os.Symlink("two", link+"2"))
	must(t, os.Rename(link+"2", link))
	wantAgain(before)
	must(t, os.Remove(link))
	wantAgain(before)
	must(t, os.WriteFile(link, nil, 0o600))
	wantAgain(before)
}
