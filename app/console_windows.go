package app

import (
	"os"
	"time"

	"golang.org/x/sys/windows"
)

// waitReadable waits until f has input, at most for wait.
func waitReadable(f *os.File, wait time.Duration) (bool, error) {
	event, err := windows.WaitForSingleObject(windows.Handle(f.Fd()), uint32(wait.Milliseconds()))
	return event == windows.WAIT_OBJECT_0, err
}
