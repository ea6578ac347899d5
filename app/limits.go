package app

import (
	"time"

	"mimecast-proxy/config"
	"mimecast-proxy/server"
)

const (
	// writeTimeout is how long a client may take to accept one write of a response.
	writeTimeout = 30 * time.Second
	// Estimated bytes per connection, and the bounds for the number of connections. New
	// connections may use 1/16 of the memory limit, those with a partial request 1/16,
	// and idle ones 1/8. Headers in many small fields take about 200 KiB, but hardly on
	// all connections at once.
	waitingConnection, leastWaiting, mostWaiting = 16 << 10, 256, 1024
	partialConnection, leastPartial, mostPartial = 64 << 10, 64, 512
	idleConnection, leastIdle, mostIdle          = 32 << 10, 128, 4096
	// spareConnections is for requests beyond PROXY_MAX_REQUESTS, to send their
	// rejections.
	spareConnections = 128
)

// adminLimits are the limits of the admin listener. Its users are probes, a scraper and a few
// people, but in a cluster every pod may connect.
var adminLimits = server.Limits{
	MaxHeaderBytes: 8 << 10, MaxConnections: 448, MaxWaiting: 256, MaxPartial: 32, MaxIdle: 32, WriteTimeout: writeTimeout,
}

// dataLimits returns the limits of the data port.
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
