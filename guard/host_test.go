package guard_test

import (
	"testing"

	"mimecast-proxy/event"
	"mimecast-proxy/guard"
)

func TestLoopbackNamesAreAlwaysAccepted(t *testing.T) {
	g := newGate(t, guard.Policy{})
	for _, host := range []string{
		"localhost", "localhost:8080", "LocalHost:80", "localhost.", "localhost.:8080", "127.0.0.1", "127.0.0.1.", "127.0.0.1:65535", "127.9.9.9:1", "[::1]", "[::1]:8080",
		"[0:0:0:0:0:0:0:1]:8080", "[::ffff:127.0.0.1]",
	} {
		g.passes("GET", "/", "Host: "+host)
	}
}

func TestOtherNamesAreRejected(t *testing.T) {
	g := newGate(t, guard.Policy{Hosts: []string{"mimecast.internal"}})
	for _, host := range []string{
		"evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1.nip.io:8080", "evil.localhost", "localhost.localdomain",
		"xlocalhost", "mimecast.internal.evil.example", "xmimecast.internal", "x.mimecast.internal",
		"0.0.0.0", "0.0.0.0:8080", "[::]:8080", "[::2]", "169.254.169.254", "10.0.0.1", "127.1", "0127.0.0.1", "0x7f.0.0.1", "2130706433",
	} {
		g.rejects(event.HostNotAllowed, "GET", "/", "Host: "+host)
	}
}

func TestMalformedHostsAreRejected(t *testing.T) {
	g := newGate(t, guard.Policy{Hosts: []string{"mimecast.internal"}})
	for _, host := range []string{
		"", ".", "..", "localhost..", ".localhost", "*", "::1", "[::1", "::1]", "[]", "[localhost]", "[127.0.0.1]", "[::1%25lo]", "[::1%lo]", "[::1]x", "[::1]8080", "[[::1]]",
		"localhost:", "localhost:x", "localhost:-1", "localhost:+1", "localhost:65536", "localhost:99999999999999999999", "localhost:80:80", "[::1]:", "[::1]:x", ":8080",
		"localhost,evil.example", "localhost;x", "loc%61lhost", "mimecast..internal", "localhost'", "(localhost)", "localhost!", "~localhost",
	} {
		g.rejects(event.HostNotAllowed, "GET", "/", "Host: "+host)
	}
	for _, host := range []string{"user@localhost", "localhost@evil.example", "l\xc3\xb6calhost", "localhost/", "localhost /", "localhost evil.example", "localhost#", "localhost?x", `localhost\`, "localhost\x00", "localhost\x7f", "\"localhost\"", "<localhost>"} {
		g.never("GET / HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n")
	}
	g.never("GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
	g.never("GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	g.never("GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
}

func TestFurtherNamesAreAcceptedWhole(t *testing.T) {
	g := newGate(t, guard.Policy{Hosts: []string{"Mimecast.Internal.", "svc_1", "10.0.0.7", "::2", "[2001:DB8::1]"}})
	for _, host := range []string{
		"mimecast.internal", "MIMECAST.internal:8080", "mimecast.internal.:80", "svc_1:80", "10.0.0.7:8080", "[::2]:80", "[0:0:0:0:0:0:0:2]", "[2001:db8::1]:80", "[2001:DB8:0::1]",
	} {
		g.passes("GET", "/", "Host: "+host)
	}
	for _, host := range []string{"internal", "10.0.0.70", "10.0.0.7.evil.example", "svc_10", "[2001:db8::2]"} {
		g.rejects(event.HostNotAllowed, "GET", "/", "Host: "+host)
	}
}

func TestAddressThatIsListenedOnEverywhereIsNoName(t *testing.T) {
	g := newGate(t, guard.Policy{Hosts: []string{"0.0.0.0", "::", "[::]"}})
	g.rejects(event.HostNotAllowed, "GET", "/", "Host: 0.0.0.0:8080")
	g.rejects(event.HostNotAllowed, "GET", "/", "Host: [::]:8080")
}

func TestStarAcceptsAnyHost(t *testing.T) {
	g := newGate(t, guard.Policy{Hosts: []string{"*"}})
	for _, host := range []string{"evil.example", "localhost", "", "0.0.0.0", "::1"} {
		g.passes("GET", "/", "Host: "+host)
	}
	g.passes("GET", "http://any.example/x")
	g.rejects(event.BadRequestTarget, "GET", "http://user@any.example/x")
}

func TestHTTP10MayGoWithoutAHost(t *testing.T) {
	g := newGate(t, guard.Policy{})
	if a := g.raw("GET / HTTP/1.0\r\n\r\n"); a.status != 200 || g.through() == nil {
		t.Errorf("%+v", a)
	}
	if a := g.raw("GET / HTTP/1.0\r\nHost: evil.example\r\n\r\n"); a.status != 403 || g.through() != nil {
		t.Errorf("%+v", a)
	}
}

func TestHostOfAnAbsoluteTargetIsTheOneThatCounts(t *testing.T) {
	g := newGate(t, guard.Policy{})
	g.rejects(event.BadRequestTarget, "GET", "http://evil.example/", "Host: localhost")
	g.passes("GET", "http://localhost/", "Host: evil.example") // RFC 9112, section 3.2.2: Host is ignored
}
