package problem_test

import (
	"bufio"
	"bytes"
	"net/http"
	"testing"

	"mimecast-proxy/event"
	"mimecast-proxy/problem"
)

func TestWireBearsTheLogsID(t *testing.T) {
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(problem.New(event.BadRequest, "no").Wire("abc"))), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if id := res.Header.Get("X-Request-Id"); id != "abc" {
		t.Errorf("id %q", id)
	}
}
