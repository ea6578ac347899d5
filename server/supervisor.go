package server

import (
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// ServiceName is what the program calls itself as a service.
const ServiceName = "mimecast-proxy"

// Supervisor is what keeps the program running: systemd, Windows' service manager, or
// a person at a console. A person at a console is one who
// wants to be told nothing.
type Supervisor struct {
	// Signals are those that ask the program to end.
	Signals <-chan os.Signal
	// Log is where people look for what the program says.
	Log io.Writer
	// Data and Admin are listeners that the supervisor opened; nil where it did not.
	Data, Admin net.Listener
	// Ready, Stopping and Alive may be nil, where nobody wants to know.
	// Ready says that requests are answered, and status how it stands.
	Ready func(status string)
	// Stopping says that no more requests are wanted.
	Stopping func()
	// Alive says that the program still answers. It is due more often than
	// every Watchdog; a Watchdog of 0 wants none.
	Alive    func()
	Watchdog time.Duration
}

// atConsole is a supervisor that takes signals and is told nothing.
func atConsole() Supervisor {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	return Supervisor{Signals: signals, Log: os.Stderr}
}
