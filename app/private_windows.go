package app

// privately runs f. On Windows files have the access rights of their directory.
func privately(f func()) { f() }
