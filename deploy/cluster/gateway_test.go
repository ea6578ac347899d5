//go:build cluster

package cluster_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var rate = flag.Int("rate", 200, "requests per second of each client of the gateway")

const gateway = "app.kubernetes.io/name=mimecast-proxy"

// result is what a test's client has counted; see tool/load.go.
type result struct {
	Sent, Resent, Connections int
	Statuses                  map[int]int
	Errors                    map[string]int
	Slowest                   float64
}

// client is a pod that sends requests to a gateway.
type client struct {
	namespace
	pod string
}

// newClient starts a client of the gateway in the namespace "mimecast" and waits for its
// first response. The cluster has no DNS, so the pod resolves the name from its hosts file.
func newClient(n namespace, name string, args ...string) client {
	n.t.Helper()
	ip := kubectl(n.t, "", "-n", "mimecast", "get", "service", "mimecast-proxy", "-o", "jsonpath={.spec.clusterIP}")
	command, _ := json.Marshal(append(append([]string{"load", "-rate", fmt.Sprint(*rate), "-key", "/var/run/mimecast-key/api-key"}, args...), "http://mimecast-proxy.mimecast")) // strings always marshal
	kubectl(n.t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {mimecast-proxy: client}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  hostAliases: [{ip: %s, hostnames: [mimecast-proxy.mimecast]}]
  containers:
    - name: load
      image: docker.io/library/tool:local
      args: %s
      securityContext: %s
      volumeMounts: [{name: key, mountPath: /var/run/mimecast-key, readOnly: true}]
  volumes: [{name: key, secret: {secretName: mimecast-key}}]
`, name, ip, command, restricted), "-n", n.name, "apply", "-f", "-")
	c := client{n, name}
	await(n.t, "a response to "+name, func() bool { return c.counted().Sent > 0 })
	return c
}

// counted returns the client's counts so far.
func (c client) counted() (last result) {
	out, err := tryKubectl(c.t, "", "-n", c.name, "logs", c.pod, "--tail=1")
	if err == nil && out != "" {
		err = json.Unmarshal([]byte(out), &last)
	}
	if err != nil {
		return result{} // the client has not started
	}
	return last
}

// checkNothingLost stops the client and checks that every response was a 200.
func (c client) checkNothingLost() {
	c.t.Helper()
	c.kubectl("exec", c.pod, "--", "/tool", "stop")
	c.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/"+c.pod, "--timeout=2m")
	last := c.counted()
	if last.Sent < 1000 || last.Statuses[http.StatusOK] != last.Sent || len(last.Errors) != 0 || last.Resent != 0 {
		c.t.Errorf("%s: %+v", c.pod, last)
	}
	c.t.Logf("%s: %d requests over %d connections, %d with 200, the slowest took %.2f s", c.pod, last.Sent, last.Connections, last.Statuses[http.StatusOK], last.Slowest)
}

// startGateway applies examples/gateway with a simulated Mimecast, and waits until both
// replicas are ready. The autoscaler raises one replica to two.
func startGateway(t *testing.T) namespace {
	t.Helper()
	n := newNamespace(t, "mimecast")
	n.secret("mimecast-proxy-key", map[string]string{"api-key": "a-key-for-the-tests-only"})
	n.apply(overlay{resources: []string{examples + "gateway"}, patches: []string{simulated("Deployment", "containers")}})
	n.awaitReplicas(2)
	return n
}

// awaitReplicas waits until exactly count pods of the gateway are left, all of them ready.
func (n namespace) awaitReplicas(count int) []pod {
	n.t.Helper()
	var ready []pod
	await(n.t, fmt.Sprintf("%d replicas", count), func() bool {
		ready = n.pods(gateway)
		all := strings.Fields(n.kubectl("get", "pods", "-l", gateway, "-o", "name"))
		return len(ready) == count && len(all) == count && !slices.ContainsFunc(ready, func(p pod) bool { return !p.condition("Ready") })
	})
	return ready
}

// No request is lost while the gateway's pods are replaced, added, removed or moved, on
// kept connections and on new ones.
func TestGatewayLosesNoRequest(t *testing.T) {
	n := startGateway(t)
	clients := newNamespace(t, "clients")
	clients.secret("mimecast-key", map[string]string{"api-key": "a-key-for-the-tests-only"})
	for _, c := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"rollout", func(t *testing.T) {
			n.kubectl("rollout", "restart", "deployment/mimecast-proxy")
			n.kubectl("rollout", "status", "deployment/mimecast-proxy", "--timeout=5m")
			n.awaitReplicas(2)
		}},
		{"scale up and down", func(t *testing.T) {
			n.kubectl("scale", "deployment/mimecast-proxy", "--replicas=4")
			n.awaitReplicas(4)
			n.kubectl("scale", "deployment/mimecast-proxy", "--replicas=2")
			n.awaitReplicas(2)
		}},
		{"drain", func(t *testing.T) {
			// Drain one node first, so that both pods are on the other.
			for _, node := range []string{"node-1", "node-2"} {
				drain(t, n, node)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			clients := namespace{t, clients.name}
			name := strings.ReplaceAll(c.name, " ", "-")
			kept := newClient(clients, name+"-kept-connections")
			fresh := newClient(clients, name+"-new-connections", "-keep-alive=false")
			c.do(t)
			kept.checkNothingLost()
			fresh.checkNothingLost()
		})
	}
}

// drain moves the gateway away from a node, then allows pods on the node again.
func drain(t *testing.T, n namespace, node string) {
	t.Helper()
	defer kubectl(t, "", "uncordon", node)
	out := kubectl(t, "", "drain", node, "--pod-selector="+gateway, "--delete-emptydir-data", "--timeout=4m")
	t.Logf("%d pods left %s", strings.Count(out, "evicted"), node)
	for _, p := range n.awaitReplicas(2) {
		if p.Spec.NodeName == node {
			t.Errorf("%s is still on %s", p.Metadata.Name, node)
		}
	}
}

// Pods that are not ready, here because Mimecast is down, do not block a node's drain.
func TestDrainEvictsPodsThatAreNotReady(t *testing.T) {
	n := newNamespace(t, "unready")
	n.secret("mimecast-proxy-key", map[string]string{"api-key": "a-key-for-the-tests-only"})
	n.apply(overlay{resources: []string{"k8s/gateway"}, patches: []string{simulated("Deployment", "containers", "-after=1h")}})
	var before []pod
	await(t, "two pods that run and are not ready", func() bool {
		before = n.pods(gateway)
		return len(before) == 2 && !slices.ContainsFunc(before, func(p pod) bool {
			return p.status("mimecast-proxy").State.Running == nil || p.condition("Ready")
		})
	})
	for _, node := range []string{"node-1", "node-2"} {
		defer kubectl(t, "", "uncordon", node)
		kubectl(t, "", "drain", node, "--pod-selector="+gateway, "--delete-emptydir-data", "--timeout=2m")
	}
	for _, p := range n.pods(gateway) {
		if slices.ContainsFunc(before, func(b pod) bool { return b.Metadata.Name == p.Metadata.Name }) {
			t.Errorf("%s was not evicted", p.Metadata.Name)
		}
	}
}

// change is a change of a Secret, with an overlap in which old and new values are valid.
type change struct {
	secret                 string
	old, both, replacement map[string]string
	// accepts reports whether a pod uses the new value.
	accepts func(namespace, pod) bool
	oldKey  string
	newKey  string
}

// Each replica picks up a changed Secret within 90 s, and no request is rejected meanwhile.
func TestChangedSecretsAreTakenUp(t *testing.T) {
	withKey := func(key string) func(namespace, pod) bool {
		return func(_ namespace, p pod) bool {
			status, err := ask(p, key)
			return err == nil && status == http.StatusOK
		}
	}
	clientsFile := func(names ...string) map[string]string {
		files := map[string]string{"clients.yaml": "clients:\n"}
		for _, name := range names {
			files["clients.yaml"] += "  " + name + ": {keys: [{file: " + name + ".key}]}\n"
			files[name+".key"] = "a-key-for-the-tests-of-" + name
		}
		return files
	}
	for name, c := range map[string]struct {
		change
		components []string
	}{
		"credentials": {change: change{
			secret: "mimecast",
			old:    map[string]string{"client-id": "demo-client-id", "client-secret": "demo-client-secret"},
			both:   map[string]string{"client-id": "second-client-id", "client-secret": "second-client-secret"},
			accepts: func(n namespace, p pod) bool {
				return strings.Contains(n.logs(p, "simulator"), "application second-client-id")
			},
			oldKey: "an-old-key-for-the-tests", newKey: "an-old-key-for-the-tests",
		}},
		"api-key": {change: change{
			secret:  "mimecast-proxy-key",
			both:    map[string]string{"api-key": "an-old-key-for-the-tests\na-new-key-for-the-tests\n"},
			accepts: withKey("a-new-key-for-the-tests"),
			oldKey:  "an-old-key-for-the-tests", newKey: "a-new-key-for-the-tests",
			replacement: map[string]string{"api-key": "a-new-key-for-the-tests\n"},
		}},
		"clients-file": {change: change{
			secret:  "mimecast-clients",
			old:     clientsFile("old"),
			both:    clientsFile("old", "new"),
			accepts: withKey("a-key-for-the-tests-of-new"),
			oldKey:  "a-key-for-the-tests-of-old", newKey: "a-key-for-the-tests-of-new",
			replacement: clientsFile("new"),
		}, components: []string{"k8s/components/clients"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNamespace(t, name)
			n.secret("mimecast-proxy-key", map[string]string{"api-key": "an-old-key-for-the-tests\n"})
			if c.old != nil {
				n.secret(c.secret, c.old)
			}
			n.apply(overlay{resources: []string{"k8s/gateway"}, components: c.components, patches: []string{
				simulated("Deployment", "containers", "-application=second-client-id:second-client-secret"),
			}})
			n.change(c.change, n.awaitReplicas(2))
		})
	}
}

// limit is how long a change may take: 90 s for the kubelet's sync period, and 5 s for the
// proxy.
const limit = 95 * time.Second

// change replaces old values with new ones, with an overlap. Every replica must switch
// within the limit and respond with 200 all the time.
func (n namespace) change(c change, replicas []pod) {
	n.t.Helper()
	stop := n.keepAsking(replicas, c.oldKey)
	n.secret(c.secret, c.both)
	n.awaitEach(replicas, "the new is taken up", func(p pod) bool { return c.accepts(n, p) })
	stop()
	if c.replacement == nil {
		return
	}
	stop = n.keepAsking(replicas, c.newKey)
	n.secret(c.secret, c.replacement)
	n.awaitEach(replicas, "the old is refused", func(p pod) bool {
		status, err := ask(p, c.oldKey)
		return err == nil && status == http.StatusUnauthorized
	})
	stop()
}

// awaitEach waits for each replica and reports those that exceed the limit.
func (n namespace) awaitEach(replicas []pod, what string, so func(pod) bool) {
	n.t.Helper()
	begin := time.Now()
	done := map[string]time.Duration{}
	await(n.t, what, func() bool {
		for _, p := range replicas {
			if done[p.Metadata.Name] == 0 && so(p) {
				done[p.Metadata.Name] = time.Since(begin)
			}
		}
		return len(done) == len(replicas)
	})
	for name, took := range done {
		if took > limit {
			n.t.Errorf("%s: %s after %v", name, what, took)
		}
		n.t.Logf("%s: %s after %v", name, what, took.Round(time.Second))
	}
}

// keepAsking sends requests to each replica until the returned function is called.
func (n namespace) keepAsking(replicas []pod, key string) (stop func()) {
	ended := make(chan struct{})
	var asking sync.WaitGroup
	for _, p := range replicas {
		asking.Go(func() {
			sent := 0
			for tick := time.NewTicker(50 * time.Millisecond); ; sent++ {
				select {
				case <-ended:
					tick.Stop()
					n.t.Logf("%s: %d requests in the meantime", p.Metadata.Name, sent)
					return
				case <-tick.C:
					if status, err := ask(p, key); err != nil || status != http.StatusOK {
						n.t.Errorf("%s: request %d: %d %v", p.Metadata.Name, sent, status, err)
					}
				}
			}
		})
	}
	return func() { close(ended); asking.Wait() }
}

// ask sends one request to a pod of the gateway. It can, because the tests run in the pods'
// network.
func ask(p pod, key string) (int, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+p.Status.PodIP+":18080/identity/whoami", nil)
	if err != nil {
		return 0, err
	}
	req.Host = "mimecast-proxy"
	req.Header.Set("X-Proxy-Key", key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}
