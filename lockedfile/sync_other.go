//go:build !unix

package lockedfile

import "os"

func closeCopy(*os.File) error       { return nil }
func syncDir(*os.File, string) error { return nil }
