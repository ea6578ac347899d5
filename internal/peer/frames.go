package peer

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Frames is an HTTP/2 server that calls a function for each complete request. The
// function can send frames that a standard server would not.
type Frames struct {
	*TLS
	// Requests is the number of requests that Respond executed.
	Requests atomic.Int64

	end func(f *Frames, c *FrameConn, stream uint32)
}

// FrameConn is a connection to Frames. Nth is the number of requests on it so far.
type FrameConn struct {
	net.Conn
	Framer *http2.Framer
	Nth    int
}

// Respond executes a stream's request: it counts it and responds with 200.
func (c *FrameConn) Respond(f *Frames, stream uint32) {
	f.Requests.Add(1)
	var block strings.Builder
	_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	_ = c.Framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(block.String()), EndHeaders: true, EndStream: true})
}

// Ending is how an HTTP/2 server ends the stream of a request without a response.
type Ending struct {
	// Write ends the stream, and counts the request if it was carried out.
	Write func(f *Frames, c *FrameConn, stream uint32)
	// CarriedOut is false if the frames say that the request was not processed (RFC 9113,
	// section 8.7), so that it may be sent again.
	CarriedOut bool
}

// Endings are the endings by name. The connection must have had a request before.
var Endings = map[string]Ending{
	"carried out, then PROTOCOL_ERROR": {func(f *Frames, c *FrameConn, stream uint32) {
		f.Requests.Add(1)
		_ = c.Framer.WriteRSTStream(stream, http2.ErrCodeProtocol)
	}, true},
	"carried out, then INTERNAL_ERROR": {func(f *Frames, c *FrameConn, stream uint32) {
		f.Requests.Add(1)
		_ = c.Framer.WriteRSTStream(stream, http2.ErrCodeInternal)
	}, true},
	"carried out, then gone": {func(f *Frames, c *FrameConn, _ uint32) {
		f.Requests.Add(1)
		c.Close()
	}, true},
	"carried out, then GOAWAY that counts it, then gone": {func(f *Frames, c *FrameConn, stream uint32) {
		f.Requests.Add(1)
		_ = c.Framer.WriteGoAway(stream, http2.ErrCodeNo, nil)
		c.Close()
	}, true},
	"GOAWAY that leaves it out": {func(_ *Frames, c *FrameConn, stream uint32) {
		_ = c.Framer.WriteGoAway(stream-2, http2.ErrCodeNo, nil)
	}, false},
	"REFUSED_STREAM": {func(_ *Frames, c *FrameConn, stream uint32) {
		_ = c.Framer.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
	}, false},
}

// ServeFrames starts a Frames server that calls end for each request. It is closed when t
// ends.
func ServeFrames(t *testing.T, end func(*Frames, *FrameConn, uint32)) *Frames {
	t.Helper()
	f := &Frames{end: end}
	f.TLS = ServeTLS(t, []string{"h2"}, func(c *tls.Conn) { f.serve(c) })
	return f
}

func (f *Frames) serve(c net.Conn) {
	if _, err := io.CopyN(io.Discard, c, int64(len(http2.ClientPreface))); err != nil {
		return
	}
	peer := &FrameConn{Conn: c, Framer: http2.NewFramer(c, c)}
	_ = peer.Framer.WriteSettings()
	for {
		frame, err := peer.Framer.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = peer.Framer.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			if frame.StreamEnded() {
				peer.Nth++
				f.end(f, peer, frame.StreamID)
			}
		case *http2.DataFrame:
			if frame.StreamEnded() {
				peer.Nth++
				f.end(f, peer, frame.StreamID)
			}
		}
	}
}
