package app

import (
	"time"

	"mimecast-proxy/config"
	"mimecast-proxy/server"
)

const (
	// writeTimeout is how long a client may take to accept one write of a
	// response.
	writeTimeout = 30 * time.Second
	// Connections without a request, and those that are kept alive, may take a
	// sixteenth and an eighth of the memory limit, counted as so many bytes each.
	// Headers in many small fields take some 200 KiB, but hardly on all of them.
	waitingConnection, leastWaiting, mostWaiting = 64 << 10, 64, 512
	idleConnection, leastIdle, mostIdle          = 32 << 10, 128, 4096
	// spareConnections are those past PROXY_MAX_REQUESTS on which a rejection is
	// being sent.
	spareConnections = 128
)

// adminLimits are those of the admin listener, which probes, a scraper and a few
// people use, and which any pod may reach.
var adminLimits = server.Limits{
	MaxHeaderBytes: 8 << 10, MaxConnections: 128, MaxWaiting: 32, MaxIdle: 32, WriteTimeout: writeTimeout,
}

// dataLimits are those of the data port.
func dataLimits(cfg config.Config) server.Limits {
	limits := server.Limits{MaxHeaderBytes: cfg.MaxHeaderBytes, MaxWaiting: mostWaiting, MaxIdle: mostIdle, WriteTimeout: writeTimeout}
	if memory := cfg.MemoryLimit; memory > 0 {
		limits.MaxWaiting = int(min(max(memory/16/waitingConnection, leastWaiting), mostWaiting))
		limits.MaxIdle = int(min(max(memory/8/idleConnection, leastIdle), mostIdle))
	}
	limits.MaxConnections = cfg.MaxRequests + limits.MaxWaiting + limits.MaxIdle + spareConnections
	return limits
}
