package server

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
)

const (
	// startHint and stopHint are how long Windows waits for the start and the stop:
	// longer than the first token request and the default drain take.
	startHint = 30 * time.Second
	stopHint  = 40 * time.Second
	// eventID is any of those that Windows' generic message file knows.
	eventID = 1
	// maxEvent is how much text an event holds, in bytes, with some to spare.
	maxEvent = 30_000
)

// RunSupervised runs the program and returns its exit code: as a service if the service
// manager started it, else at a console.
func RunSupervised(program func(Supervisor) int) (code int, err error) {
	isService, err := svc.IsWindowsService()
	if err != nil {
		return 0, fmt.Errorf("asking whether Windows runs this as a service: %w", err)
	}
	if !isService {
		return program(atConsole()), nil
	}
	log, err := eventlog.Open(ServiceName)
	if err != nil {
		return 0, fmt.Errorf("opening the event log: %w", err)
	}
	s := &windowsService{program: program, log: &eventWriter{log: log}}
	err = svc.Run(ServiceName, s)
	return s.code, errors.Join(err, log.Close())
}

// windowsService runs the program for the service manager.
type windowsService struct {
	program func(Supervisor) int
	log     *eventWriter
	code    int
}

// Execute implements svc.Handler.
func (s *windowsService) Execute(_ []string, requests <-chan svc.ChangeRequest, states chan<- svc.Status) (specific bool, code uint32) {
	signals := make(chan os.Signal, 2)
	ready, ended := make(chan struct{}, 1), make(chan int, 1)
	supervisor := Supervisor{
		Signals: signals, Log: s.log,
		Ready: func(string) { ready <- struct{}{} },
	}
	state := svc.Status{State: svc.StartPending, WaitHint: uint32(startHint.Milliseconds())}
	states <- state
	go func() { ended <- s.program(supervisor) }()
	for {
		select {
		case <-ready:
			state = svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown}
			states <- state
		case s.code = <-ended:
			states <- svc.Status{State: svc.StopPending}
			return true, uint32(s.code)
		case r := <-requests:
			if r.Cmd == svc.Stop || r.Cmd == svc.Shutdown {
				state = svc.Status{State: svc.StopPending, WaitHint: uint32(stopHint.Milliseconds())}
				select {
				case signals <- os.Interrupt:
				default: // a signal is pending
				}
			}
			states <- state
		}
	}
}

// eventWriter writes each line as an event, with the line's level.
type eventWriter struct {
	log *eventlog.Log
	// rest is what came after the last whole line.
	rest []byte
}

// Write implements io.Writer. It is for one writer at a time, as the log is.
func (w *eventWriter) Write(b []byte) (int, error) {
	w.rest = append(w.rest, b...)
	for {
		line, rest, whole := bytes.Cut(w.rest, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		w.rest = rest
		if err := w.event(line); err != nil {
			return 0, err
		}
	}
}

func (w *eventWriter) event(line []byte) error {
	text := string(bytes.ReplaceAll(line[:min(len(line), maxEvent)], []byte{0}, nil)) // Windows takes no NUL
	switch {
	case bytes.Contains(line, []byte(`"level":"info"`)), bytes.Contains(line, []byte(`"level":"debug"`)):
		return w.log.Info(eventID, text)
	case bytes.Contains(line, []byte(`"level":"warn"`)):
		return w.log.Warning(eventID, text)
	default: // a line without a level is why the program ended
		return w.log.Error(eventID, text)
	}
}
