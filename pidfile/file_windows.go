package pidfile

import "golang.org/x/sys/windows"

// noFollow is a flag to open a path without following a symbolic link.
const noFollow = windows.FILE_FLAG_OPEN_REPARSE_POINT
