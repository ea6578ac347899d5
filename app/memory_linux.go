package app

import "golang.org/x/sys/unix"

// HideMemory protects the secrets in this process's memory and environment. Other processes of
// the same user, such as the command of Run, cannot read them. HideMemory also prevents core
// dumps. Root can still read everything.
func HideMemory() {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // every kernel that Go supports has it
}
