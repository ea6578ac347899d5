//go:build unix

package e2e

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
	"mimecast-proxy/simulator"
)

const batches = "/siem/v1/batch/events/cg"

// batchURLs returns the URLs that a client gets in a list of batch files.
func batchURLs(t *testing.T, p *program.Program, query string) (all []string) {
	t.Helper()
	res, body := p.Must("GET", batches+query, "")
	var list struct {
		Value []struct{ URL string }
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil || res.StatusCode != http.StatusOK || len(list.Value) == 0 {
		t.Fatalf("%v: %d %.500s", err, res.StatusCode, body)
	}
	for _, f := range list.Value {
		all = append(all, f.URL)
	}
	return all
}

func TestBatchFilesComeThroughTheRelay(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{RequestLog: 1000})
	p := program.Serve(t, sim, "PROXY_BATCH_RELAY=true")
	for _, address := range batchURLs(t, p, "?type=receipt&pageSize=3") {
		path, ok := strings.CutPrefix(address, p.URL)
		if !ok || !strings.HasPrefix(path, "/batch/") {
			t.Fatalf("the list has %s", address)
		}
		res, body := p.Must("GET", path, "", "Authorization", "Bearer x", "X-Mc-Accountcode", "C1", "Cookie", "a=b")
		if res.StatusCode != http.StatusOK || !strings.HasPrefix(body, "\x1f\x8b") {
			t.Errorf("%d %.200q", res.StatusCode, body)
		}
		if res, body := p.Must("GET", path+"A", ""); res.StatusCode != http.StatusForbidden || !strings.Contains(body, "batch_url_invalid") {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	}
	files := 0
	for _, r := range sim.Requests() {
		if r.Listener != "blobs" {
			continue
		}
		files++
		if len(r.Header) != 1 || r.Header.Get("User-Agent") != "mimecast-proxy" {
			t.Errorf("the file's host got %v", r.Header)
		}
	}
	if files != 3 {
		t.Errorf("%d files were requested", files)
	}
	if strings.Contains(p.Stderr.String(), "X-Amz") {
		t.Error("the log has a signature")
	}
}

// The URLs in a list point to the address that the client used, and work there.
func TestBatchURLsLeadToWhereTheClientCalled(t *testing.T) {
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	f := newKeyPairFiles(t)
	p := program.Serve(t, sim, f.environ("PROXY_BATCH_RELAY=true", "PROXY_ALLOWED_HOSTS=proxy.test", "PROXY_INTERCEPT_LISTEN=127.0.0.1:0")...)
	secure := tlsClient(f, true)
	t.Cleanup(secure.CloseIdleConnections)
	for base, client := range map[string]*http.Client{
		p.URL: p.Client, "https://" + tlsPort(t, p): secure, "https://eu-api.mimecast.com": interceptedClient(t, p, ""),
	} {
		get := func(address string) string {
			res, err := client.Get(address)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != http.StatusOK {
				t.Fatalf("%s: %d %v %s", base, res.StatusCode, err, body)
			}
			return string(body)
		}
		list := get(base + batches + "?type=receipt&pageSize=1")
		_, rest, _ := strings.Cut(list, `"url":"`)
		address, _, _ := strings.Cut(rest, `"`)
		if !strings.HasPrefix(address, base+"/batch/") {
			t.Errorf("%s: the list is %s", base, list)
		} else if !strings.HasPrefix(get(address), "\x1f\x8b") {
			t.Errorf("%s: the file is none", base)
		}
	}
}

// A replica's URLs work at other replicas, including one that already has the next secret.
func TestBatchURLsAreGoodForEveryReplicaAndAfterARotation(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	sim := program.Simulate(t, simulator.Options{})
	path, replace := fileWith(t, simulator.DefaultClientSecret)
	one := program.Serve(t, sim, "PROXY_BATCH_RELAY=true")
	other := program.Serve(t, sim, "PROXY_BATCH_RELAY=true", "MIMECAST_CLIENT_SECRET=", "MIMECAST_CLIENT_SECRET_FILE="+path)
	sealed := strings.TrimPrefix(batchURLs(t, one, "?type=receipt&pageSize=1")[0], one.URL)
	get := func(p *program.Program) int {
		res, _ := p.Must("GET", sealed, "")
		return res.StatusCode
	}
	if got := get(other); got != http.StatusOK {
		t.Fatalf("another replica: %d", got)
	}
	const next = "the-next-client-secret-0123456789"
	sim.SetCredentials(simulator.DefaultClientID, next)
	before := sim.TokenRequests()
	replace(next)
	program.Await(t, "the token of the new secret", func() bool { return sim.TokenRequests() > before })
	if got := get(other); got != http.StatusOK {
		t.Errorf("after a rotation: %d", got)
	}
	fresh := strings.TrimPrefix(batchURLs(t, other, "?type=receipt&pageSize=1")[0], other.URL)
	if res, _ := one.Must("GET", fresh, ""); res.StatusCode != http.StatusForbidden {
		t.Errorf("a replica without the new secret: %d", res.StatusCode)
	}
}

// bigFiles serves files of size bytes, each with different content.
func bigFiles(t *testing.T, size int) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		if err != nil || r.URL.RawQuery != "signature=x" || len(r.Header) != 1 {
			t.Errorf("the file's host got %s %v", r.URL, r.Header)
		}
		w.Header().Set("Content-Length", strconv.Itoa(size))
		_ = writeFile(w, n, size)
	}))
	t.Cleanup(s.Close)
	return s
}

// writeFile writes the content of file n, which differs from that of all other files.
func writeFile(w io.Writer, n, size int) error {
	key, counter := sha256.Sum256([]byte(strconv.Itoa(n))), make([]byte, aes.BlockSize)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return err
	}
	stream, zeros, b := cipher.NewCTR(block, counter), make([]byte, 64<<10), make([]byte, 64<<10)
	for left := size; left > 0; left -= len(b) {
		b = b[:min(left, len(b))]
		stream.XORKeyStream(b, zeros[:len(b)])
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

var (
	batchFiles    = flag.Int("batch-files", 20, "how many files TestBigBatchFilesTakeNoMemory gets; 100 to be sure")
	batchFileSize = flag.Int("batch-file-mib", 16, "how big they are, in MiB; 100 to be sure")
)

// Many files are fetched, ten at a time. Each must arrive unchanged, and the proxy must
// use at most 8 MiB more memory.
func TestBigBatchFilesTakeNoMemory(t *testing.T) {
	suite.Slow(t)
	t.Parallel()
	count, size := *batchFiles, *batchFileSize<<20
	if testing.Short() {
		count, size = 10, 4<<20 // ten at a time are still five times the memory limit
	}
	sim := program.Simulate(t, simulator.Options{})
	files := bigFiles(t, size)
	var list strings.Builder
	for n := range count {
		_, _ = fmt.Fprintf(&list, `,{"url":"%s/%d?signature=x","size":%d}`, files.URL, n, size)
	}
	sim.AddFault(simulator.Fault{Path: batches, Status: http.StatusOK, Body: `{"value":[` + list.String()[1:] + `],"isCaughtUp":true}`})
	p := program.Serve(t, sim, "PROXY_BATCH_RELAY=true", "GOMEMLIMIT=64MiB")
	addresses := batchURLs(t, p, "")
	fetch := func(n int) error {
		res, err := p.Client.Get(addresses[n])
		if err != nil {
			return err
		}
		defer res.Body.Close()
		got, want := sha256.New(), sha256.New()
		if _, err := io.Copy(got, res.Body); err != nil {
			return err
		}
		if err := writeFile(want, n, size); err != nil {
			return err
		}
		if res.StatusCode != http.StatusOK || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
			return fmt.Errorf("status %d, and another content", res.StatusCode)
		}
		return nil
	}
	before := p.Resident().Now
	var next atomic.Int64
	var fetching sync.WaitGroup
	for range 10 {
		fetching.Go(func() {
			for n := int(next.Add(1)) - 1; n < count; n = int(next.Add(1)) - 1 {
				if err := fetch(n); err != nil {
					t.Errorf("file %d: %v", n, err)
				}
			}
		})
	}
	fetching.Wait()
	most := p.Resident().Most
	t.Logf("%d files of %d MiB: %.1f MiB before, %.1f MiB at most", count, size>>20, program.MiB(before), program.MiB(most))
	if most-before > 8<<20 {
		t.Errorf("%.1f MiB more memory", program.MiB(most-before))
	}
}
