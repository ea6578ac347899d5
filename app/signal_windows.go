package app

import "os"

// forwardable is empty: a Windows console sends interrupts only.
var forwardable []os.Signal

// RereadSignals returns nil: Windows has no such signal.
func RereadSignals() <-chan os.Signal { return nil }

// fromTerminal returns true: signals come from the console, which sends them to the command
// too.
func fromTerminal(os.Signal) bool { return true }

// surviveBrokenPipes does nothing: Windows has no SIGPIPE.
func surviveBrokenPipes() {}
