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
	// Connections on which nothing has come, on which a request has begun, and that
	// are kept alive may take a sixteenth, a sixteenth and an eighth of the memory
	// limit, counted as so many bytes each. Headers in many small fields take some
	// 200 KiB, but hardly on all of them.
	waitingConnection, leastWaiting, mostWaiting = 16 << 10, 256, 1024
	partialConnection, leastPartial, mostPartial = 64 << 10, 64, 512
	idleConnection, leastIdle, mostIdle          = 32 << 10, 128, 4096
	// spareConnections are those past PROXY_MAX_REQUESTS on which a rejection is
	// being sent.
	spareConnections = 128
)

// adminLimits are those of the admin listener, which probes, a scraper and a few
// people use, and which any pod may reach.
var adminLimits = server.Limits{
	MaxHeaderBytes: 8 << 10, MaxConnections: 448, MaxWaiting: 256, MaxPartial: 32, MaxIdle: 32, WriteTimeout: writeTimeout,
}

// dataLimits are those of the data port.
func dataLimits(cfg config.Config) server.Limits {
	share := func(part, each, least, most int64) int {
		if cfg.MemoryLimit == 0 {
			return int(most)
		}
		return int(min(max(cfg.MemoryLimit/part/each, least), most))
	}
	limits := server.Limits{
		MaxHeaderBytes: cfg.MaxHeaderBytes,
		MaxWaiting:     share(16, waitingConnection, leastWaiting, mostWaiting),
		MaxPartial:     share(16, partialConnection, leastPartial, mostPartial),
		MaxIdle:        share(8, idleConnection, leastIdle, mostIdle),
		WriteTimeout:   writeTimeout,
	}
	limits.MaxConnections = cfg.MaxRequests + limits.MaxWaiting + limits.MaxPartial + limits.MaxIdle + spareConnections
	return limits
}
