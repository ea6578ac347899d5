// Package e2e tests the built program against its documentation. It runs the program as a
// process over real sockets and TLS, with the simulator as Mimecast. The tests cover the
// commands, log, metrics and status page, and every document that shows the program's
// output. The core of the contract is in proxy_test.go at the root of the repository.
package e2e

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"mimecast-proxy/internal/browser"
	"mimecast-proxy/internal/program"
	"mimecast-proxy/internal/suite"
)

func TestMain(m *testing.M) {
	if os.Getenv("TEST_CHILD") != "" {
		os.Exit(child())
	}
	suite.Parallel(6)
	os.Exit(program.Main(browser.M{M: m}))
}

// These URLs are hard-coded in the clients of TestUnmodifiedClientsReachMimecastThroughRun.
const (
	whoamiURL   = "https://eu-api.mimecast.com/identity/whoami"
	foreignHost = "foreign.test"
	foreignURL  = "https://" + foreignHost + "/"
)

// goClient is one of these clients.
func goClient() int {
	for name, address := range map[string]string{"mimecast": whoamiURL, "foreign": foreignURL} {
		res, err := http.Get(address)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		res.Body.Close()
		fmt.Println(name, res.StatusCode, base64.StdEncoding.EncodeToString(res.TLS.PeerCertificates[0].Raw))
	}
	return 0
}

// child is the command that TestRunLendsACommandTheProxy runs.
func child() int {
	base := os.Getenv("MIMECAST_BASE_URL")
	if os.Getenv("TEST_CHILD") == "sleep" {
		fmt.Println("sleeping")
		time.Sleep(time.Minute)
	}
	if os.Getenv("TEST_CHILD") == "environ" {
		fmt.Println(strings.Join(os.Environ(), "\n"))
		return 0
	}
	if os.Getenv("TEST_CHILD") == "intercept" {
		return goClient()
	}
	res, err := http.Get(base + "/identity/whoami")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer res.Body.Close()
	fmt.Println(res.StatusCode, base == os.Getenv("MIMECAST_PROXY_URL"), os.Getenv("MIMECAST_CLIENT_ID")+os.Getenv("MIMECAST_CLIENT_SECRET"), os.Args[1:])
	return 7
}
