package server

import (
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// ServiceName is the name of the Windows service and of its event log source.
const ServiceName = "mimecast-proxy"

// Supervisor connects the program to what supervises it: systemd, the Windows service
// manager, or a console, which takes no notifications.
type Supervisor struct {
	// Signals are requests to stop; the second one ends the drain.
	Signals <-chan os.Signal
	// Log is where the program writes its log.
	Log io.Writer
	// Data and Admin are listeners that the supervisor opened; nil if it did not.
	Data, Admin net.Listener
	// Ready, Stopping and Alive notify the supervisor. They may be nil.
	//
	// Ready reports that the program serves requests, with a status for the operator.
	Ready func(status string)
	// Stopping reports that the program drains.
	Stopping func()
	// Alive reports that the program responds.
	Alive func()
	// Watchdog is the longest time between two calls of Alive; 0: no call is needed.
	Watchdog time.Duration
}

// atConsole returns a supervisor that sends signals and takes no notifications.
func atConsole() Supervisor {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	return Supervisor{Signals: signals, Log: os.Stderr}
}
