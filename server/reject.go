package server

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
)

// Rejection is a request that net/http rejects before it reaches the handler: its
// bytes are no HTTP, or its headers are too large.
type Rejection struct {
	// Status is net/http's.
	Status int
	// Peer is the client's address.
	Peer net.Addr
	// ClientClosed says that the client had closed the connection, or its half of it,
	// before a request was whole.
	ClientClosed bool
}

// rejection returns what to send in place of b, which is written while no request
// is in the handler. ok says that b is a response: else it is of a TLS handshake.
func (c *conn) rejection(b []byte) (response []byte, ok bool) {
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		return b, false
	}
	_ = res.Body.Close() // it is read from b
	if c.table.reject != nil {
		response = c.table.reject(Rejection{Status: res.StatusCode, Peer: c.RemoteAddr(), ClientClosed: c.readFailed.Load()})
	}
	if response == nil {
		response = b
	}
	return response, true
}
