// Package systemtest tests the exported functions of package interlock with
// other users, file systems, namespaces and machines, on Linux.
//
// Most of these tests need root, and are skipped without. Those of NFS need the
// machines that "make test-nfs" starts.
package systemtest
