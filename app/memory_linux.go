package app

import "golang.org/x/sys/unix"

// HideMemory keeps other processes of the same user, the command of Run among
// them, from reading the secrets in this one's memory and environment, and the
// system from writing them to a core file. Root still can.
func HideMemory() {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // a kernel that does not know it runs nothing of Go's
}
