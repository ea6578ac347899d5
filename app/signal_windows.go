package app

import "os"

// forwardable is empty: Windows' consoles send interrupts alone.
var forwardable []os.Signal

// RereadSignals returns nil: Windows has no signal that could ask for it.
func RereadSignals() <-chan os.Signal { return nil }

// fromTerminal reports whether sig came from the console, which sends it to the
// command too.
func fromTerminal(os.Signal) bool { return true }

// surviveBrokenPipes has nothing to do: there is no such signal.
func surviveBrokenPipes() {}
