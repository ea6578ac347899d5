package server

// withUmask runs f. On Windows files have the access rights of their directory.
func withUmask(f func()) { f() }
