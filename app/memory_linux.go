package app

import "golang.org/x/sys/unix"

// HideMemory keeps other processes of the same user, such as the command of Run, from reading
// the secrets in this process's memory and environment. It also prevents core dumps. Root
// can still read both.
func HideMemory() {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // every kernel that Go supports has it
}
