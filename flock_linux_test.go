//go:build !interlock_bsd

package interlock

import "testing"

func TestOpenFileOnRemoteFileSystem(t *testing.T) {
	asRemote(t)
	t.Run("cancel", TestOpenFileCancel)
	t.Run("cancel races with grant", TestOpenFileCancelRacesWithGrant)
	t.Run("closed", TestOpenFileClosed)
	t.Run("close releases", TestOpenFileCloseReleases)
}
