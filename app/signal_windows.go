package app

import "os"

// forwardable is empty: Windows' consoles send interrupts alone.
var forwardable []os.Signal

// fromTerminal reports whether sig came from the console, which sends it to the
// command too.
func fromTerminal(os.Signal) bool { return true }

// surviveBrokenPipes has nothing to do: there is no such signal.
func surviveBrokenPipes() {}
