package simulator_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"

	"mimecast-proxy/simulator"
)

func TestProtocolsAreTheOnesOffered(t *testing.T) {
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		res, _ := r.login().get("/identity/whoami")
		want := 2
		if strings.HasSuffix(t.Name(), "HTTP1") {
			want = 1
		}
		if res.ProtoMajor != want || res.TLS == nil {
			t.Errorf("%s, TLS %v", res.Proto, res.TLS)
		}
	})
}

func TestCertificateIsForLoopbackByNameAndAddress(t *testing.T) {
	r := start(t, simulator.Options{})
	for _, host := range []string{"127.0.0.1", "::1", "localhost"} {
		c, err := (&tls.Dialer{Config: &tls.Config{RootCAs: r.Roots, ServerName: host}}).DialContext(t.Context(), "tcp", strings.TrimPrefix(r.URL, "https://"))
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		_ = c.Close()
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(r.CA) || !pool.Equal(r.Roots) {
		t.Error("CA and Roots are not the same authority")
	}
}

func TestCertificateCanBeSpoilt(t *testing.T) {
	for flaw, ok := range map[simulator.Certificate]func(error) bool{
		simulator.CertificateExpired: func(err error) bool {
			e, is := errors.AsType[x509.CertificateInvalidError](err)
			return is && e.Reason == x509.Expired
		},
		simulator.CertificateOtherHost: func(err error) bool {
			_, is := errors.AsType[x509.HostnameError](err)
			return is
		},
	} {
		r := start(t, simulator.Options{Certificate: flaw})
		if _, _, err := r.try(r.request("GET", "/", nil)); !ok(err) {
			t.Errorf("%s: %v", flaw, err)
		}
	}
	if s, err := simulator.Start(simulator.Options{Certificate: "nonsense"}); err == nil {
		t.Errorf("started %s", s.URL)
	}
	unknown := start(t, simulator.Options{})
	unknown.client.Transport.(*http.Transport).TLSClientConfig.RootCAs = x509.NewCertPool()
	if _, _, err := unknown.try(unknown.request("GET", "/", nil)); err == nil {
		t.Error("an unknown authority was trusted")
	}
}

func TestAddressCanBeChosenAndTaken(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if s, err := simulator.Start(simulator.Options{Address: address}); err == nil {
		t.Errorf("started at %s, which is taken", s.URL)
	}
	_ = l.Close()
	if r := start(t, simulator.Options{Address: address}); r.URL != "https://"+address {
		t.Errorf("started at %s", r.URL)
	}
}

func TestCloseEndsWhatHangsAndWaits(t *testing.T) {
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		r.login().AddFault(must(t, "hang"))
		errs := make(chan error, 3)
		for i := range 3 {
			go func() {
				_, _, err := r.try(r.release(i))
				errs <- err
			}()
		}
		eventually(t, "all three hang", func() bool { return r.Counts().Requests == 4 })
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		for range 3 {
			if err := <-errs; err == nil {
				t.Error("a request that hung got an answer")
			}
		}
		for _, q := range r.Requests() {
			if !q.Done {
				t.Errorf("%s %s still runs after Close", q.Method, q.Target)
			}
		}
	})
}

func TestConnectionsCanBeDropped(t *testing.T) {
	bothProtocols(t, simulator.Options{}, func(t *testing.T, r *rig) {
		r.login().AddFault(simulator.Fault{Delay: simulator.Forever, Count: 1})
		failed := make(chan error, 1)
		go func() {
			_, _, err := r.try(r.release(0))
			failed <- err
		}()
		eventually(t, "the message is released", func() bool { return len(r.Executions("hold-release")) == 1 })
		r.DropConnections()
		if err := <-failed; err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		eventually(t, "new connections are accepted", func() bool {
			res, _, err := r.try(r.request("GET", "/identity/whoami", nil))
			return err == nil && res.StatusCode == 200
		})
	})
}
