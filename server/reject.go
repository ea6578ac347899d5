package server

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
)

// Rejection is a request that net/http rejects before it reaches the handler: it is not
// HTTP, or its headers are too large.
type Rejection struct {
	// Status is net/http's: 400, 431, 501, 505 or another.
	Status int
	// Peer is the client's address.
	Peer net.Addr
	// ClientClosed is true if the client closed the connection, or its sending half,
	// before the request was complete.
	ClientClosed bool
	// SpeaksTLS is true if the client spoke TLS to a plain port, and SpeaksPlain if it
	// spoke plain HTTP to a TLS port.
	SpeaksTLS, SpeaksPlain bool
}

// replaceRejection returns the response to send in place of b, which is written while no
// request is in the handler. ok is false if b is not a response but part of a TLS
// handshake.
func (c *conn) replaceRejection(b []byte) (response []byte, ok bool) {
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		return b, false
	}
	_ = res.Body.Close() // it is read from b
	if c.table.reject != nil {
		response = c.table.reject(Rejection{Status: res.StatusCode, Peer: c.RemoteAddr(), ClientClosed: c.readFailed.Load(),
			SpeaksTLS: !c.withTLS && c.speaksTLS.Load(), SpeaksPlain: c.withTLS && !c.speaksTLS.Load()})
	}
	if response == nil {
		response = b
	}
	return response, true
}
