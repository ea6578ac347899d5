package health_test

import (
	"fmt"
	"testing"
	"time"

	"mimecast-proxy/event"
	"mimecast-proxy/health"
)

// BenchmarkHealth evaluates the maximum number of accounts and clients of a clients file.
func BenchmarkHealth(b *testing.B) {
	var facts health.Facts
	for i := range 100 {
		facts.Accounts = append(facts.Accounts, health.Account{Name: fmt.Sprint("account", i), Usable: true, Fetched: time.Now()})
		facts.Clients = append(facts.Clients, fmt.Sprint("client", i))
	}
	m := health.New(time.Now(), func() health.Facts { return facts })
	for i := range 100_000 {
		m.Record(event.Outcome{At: time.Now(), Account: facts.Accounts[i%100].Name, Client: facts.Clients[i%100], Answered: time.Now()})
	}
	for b.Loop() {
		m.Health()
	}
}
