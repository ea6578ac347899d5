//go:build cluster

package cluster_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	tool     = "app.kubernetes.io/name=legacy-tool"
	examples = "k8s/examples/"
	// found is part of the response to the examples' request.
	found = "account-codes"
)

// A tool's first request succeeds in every kind of workload: simulator, proxy and tool
// start in this order.
func TestSidecarStartsBeforeTheTool(t *testing.T) {
	t.Run("Job", func(t *testing.T) {
		n := newNamespace(t, "job")
		n.apply(overlay{resources: []string{examples + "job"}, patches: []string{simulated("Job", "initContainers")}})
		n.kubectl("wait", "--for=condition=Complete", "job/legacy-tool", "--timeout=5m")
		n.checkJobsPod()
	})
	t.Run("CronJob", func(t *testing.T) {
		n := newNamespace(t, "cronjob")
		n.apply(overlay{resources: []string{examples + "cronjob"}, patches: []string{simulated("CronJob", "initContainers")}})
		n.kubectl("create", "job", "now", "--from=cronjob/legacy-tool")
		n.kubectl("wait", "--for=condition=Complete", "job/now", "--timeout=5m")
		n.checkJobsPod()
	})
	t.Run("Deployment", func(t *testing.T) {
		n := newNamespace(t, "deployment")
		n.apply(overlay{resources: []string{examples + "deployment"}, patches: []string{simulated("Deployment", "initContainers")}})
		n.kubectl("rollout", "status", "deployment/legacy-tool", "--timeout=5m")
		n.checkFirstRequest()
	})
	t.Run("StatefulSet", func(t *testing.T) {
		n := newNamespace(t, "statefulset")
		n.apply(overlay{
			files:      map[string]string{"tool.yaml": strings.Replace(readRepository(t, examples+"deployment/tool.yaml"), "kind: Deployment", "kind: StatefulSet", 1)},
			components: []string{"k8s/components/sidecar", "k8s/components/network-policy"},
			patches:    []string{simulated("StatefulSet", "initContainers")},
		})
		n.kubectl("rollout", "status", "statefulset/legacy-tool", "--timeout=5m")
		n.checkFirstRequest()
	})
}

// checkJobsPod checks the start and the end of a completed Job's pod.
func (n namespace) checkJobsPod() {
	n.t.Helper()
	p := n.onlyPod(tool)
	n.checkOrder(p)
	n.checkEnd(p, 0)
	if text := n.logs(p, "tool"); !strings.Contains(text, found) {
		n.t.Errorf("the tool got %q", text)
	}
}

// checkFirstRequest checks the start of a running pod and the tool's first response.
func (n namespace) checkFirstRequest() {
	n.t.Helper()
	p := n.onlyPod(tool)
	await(n.t, "the tool's first request", func() bool { return n.logs(p, "tool") != "" })
	n.checkOrder(p)
	if text := n.logs(p, "tool"); !strings.Contains(text, found) {
		n.t.Errorf("the tool got %q", text)
	}
}

// The pod of a failed Job ends too, with the tool's exit code.
func TestFailedJobEnds(t *testing.T) {
	n := newNamespace(t, "failed-job")
	n.apply(overlay{resources: []string{examples + "job"}, patches: []string{
		simulated("Job", "initContainers"),
		toolArgs("Job", `curl -sS --fail -o /dev/null "$MIMECAST_BASE_URL/identity/whoami"; exit 3`),
		"apiVersion: batch/v1\nkind: Job\nmetadata: {name: any}\nspec: {backoffLimit: 0}\n",
	}})
	n.kubectl("wait", "--for=condition=Failed", "job/legacy-tool", "--timeout=5m")
	p := n.onlyPod(tool)
	n.checkOrder(p)
	n.checkEnd(p, 3)
	if p.Status.Phase != "Failed" {
		t.Errorf("the pod is %s", p.Status.Phase)
	}
}

// While Mimecast is down, the tool starts after a minute and gets the cause in its error
// response. The proxy is not restarted, and serves once Mimecast is back.
func TestToolStartsWhileMimecastIsDown(t *testing.T) {
	n := newNamespace(t, "mimecast-down")
	n.apply(overlay{resources: []string{examples + "job"}, patches: []string{
		simulated("Job", "initContainers", "-after=100s"),
		toolArgs("Job", `until curl -sS --fail -o /dev/null -w '%{http_code}\n' "$MIMECAST_BASE_URL/identity/whoami"; do sleep 1; done`),
	}})
	n.kubectl("wait", "--for=condition=Complete", "job/legacy-tool", "--timeout=5m")
	p := n.onlyPod(tool)
	n.checkOrder(p)
	n.checkEnd(p, 0)
	// Kubernetes counts whole seconds, and the probe's period is one second.
	if waited := p.status("tool").startedAt().Sub(p.status("mimecast-proxy").startedAt()); waited < 59*time.Second || waited > 85*time.Second {
		t.Errorf("the tool waited %v", waited)
	}
	all := n.firstAndLast(p)
	t.Logf("the tool got, first and last: %s", all)
	if !strings.HasPrefix(all, "503") || !strings.HasSuffix(all, "200") {
		t.Errorf("the tool got %s", n.logs(p, "tool"))
	}
}

// firstAndLast returns the first and the last status that a tool has printed.
func (n namespace) firstAndLast(p pod) string {
	n.t.Helper()
	all := statusLine.FindAllString(n.logs(p, "tool"), -1)
	if len(all) == 0 {
		return ""
	}
	return all[0] + ", " + all[len(all)-1]
}

var statusLine = regexp.MustCompile(`(?m)^\d{3}$`)

// The kubelet restarts a killed proxy, while the tool keeps running.
func TestKilledProxyIsRestartedUnderTheTool(t *testing.T) {
	n := newNamespace(t, "killed")
	n.apply(overlay{resources: []string{examples + "deployment"}, patches: []string{
		simulated("Deployment", "initContainers"),
		// Every tenth body is 4 MiB, which the proxy keeps until the response.
		toolArgs("Deployment", `i=0; while true; do i=$((i+1)); if [ $((i%10)) = 0 ]; then head -c 4194304 /dev/zero; else echo; fi |
			curl -sS -m 20 -o /dev/null -w '%{http_code}\n' --data-binary @- "$MIMECAST_BASE_URL/api/account/get-account"; sleep 0.1; done`),
	}})
	n.kubectl("rollout", "status", "deployment/legacy-tool", "--timeout=5m")
	p := n.onlyPod(tool)
	t.Run("SIGKILL", func(t *testing.T) {
		n := namespace{t, n.name}
		if err := syscall.Kill(processOf(t, p.status("mimecast-proxy")), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		n.awaitRestart(1, "Error")
	})
	t.Run("OOM", func(t *testing.T) {
		n := namespace{t, n.name}
		starve(t, n.onlyPod(tool).status("mimecast-proxy"))
		n.awaitRestart(2, "OOMKilled")
	})
}

// awaitRestart waits until the proxy runs again and the tool gets responses from it.
func (n namespace) awaitRestart(count int, reason string) {
	n.t.Helper()
	begin := time.Now()
	var p pod
	await(n.t, "restart "+strconv.Itoa(count), func() bool {
		p = n.onlyPod(tool)
		s := p.status("mimecast-proxy")
		return s.RestartCount == count && s.State.Running != nil && s.Ready
	})
	took := time.Since(begin)
	before := len(statusLine.FindAllString(n.logs(p, "tool"), -1))
	await(n.t, "ten responses to the tool", func() bool {
		all := statusLine.FindAllString(n.logs(p, "tool"), -1)
		return len(all) > before+10 && all[len(all)-1] != "000" && all[len(all)-1] < "500"
	})
	if s := p.status("mimecast-proxy"); s.LastState.Terminated == nil || s.LastState.Terminated.Reason != reason {
		n.t.Errorf("it ended by %+v, not %s", s.LastState.Terminated, reason)
	}
	if s := p.status("tool"); s.RestartCount != 0 || s.State.Running == nil {
		n.t.Errorf("the tool did not go on: %+v", s)
	}
	all := statusLine.FindAllString(n.logs(p, "tool"), -1)
	n.t.Logf("restarted after %v; the tool got no response to %d of %d requests so far", took.Round(time.Second), strings.Count(strings.Join(all, " "), "000"), len(all))
}

// processOf returns the first process of a container. The tests can see it, because they
// run in the cluster's namespaces.
func processOf(t *testing.T, s status) int {
	t.Helper()
	groups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	_, id, _ := strings.Cut(s.ContainerID, "://")
	for _, file := range groups {
		text, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(text), id) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("no process of %s", s.ContainerID)
	return 0
}

// starve lowers a container's memory limit until the kernel kills it.
func starve(t *testing.T, s status) {
	t.Helper()
	limit, size, line := "/sys/fs/cgroup/memory", "memory.limit_in_bytes", `(?m)^\d+:memory:(/.+)$`
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		limit, size, line = "/sys/fs/cgroup", "memory.max", `(?m)^0::(/.+)$`
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", processOf(t, s)))
	if err != nil {
		t.Fatal(err)
	}
	group := regexp.MustCompile(line).FindSubmatch(text)
	if group == nil {
		t.Fatalf("no group for memory: %s", text)
	}
	for mib := 64; mib > 1; mib -= 2 {
		// cgroup v1 rejects a limit below the current usage; v2 kills the container.
		if err := os.WriteFile(filepath.Join(limit, string(group[1]), size), []byte(strconv.Itoa(mib<<20)), 0o600); err != nil {
			t.Logf("limit of %d MiB: %v", mib, err)
			return
		}
	}
}

var interceptionPatch = regexp.MustCompile("(?s)## Clients with Mimecast's address in their code\n.*?```yaml\n(.*?)```")

// A tool with Mimecast's address in its code works with the patch of docs/kubernetes.md.
func TestInterceptionExample(t *testing.T) {
	patch := interceptionPatch.FindStringSubmatch(readRepository(t, "docs/kubernetes.md"))
	if patch == nil {
		t.Fatal("the document has no patch")
	}
	n := newNamespace(t, "interception")
	n.apply(overlay{
		files:      map[string]string{"tool.yaml": strings.ReplaceAll(readRepository(t, examples+"deployment/tool.yaml"), "name: legacy-tool", "name: tool")},
		components: []string{"k8s/components/sidecar"},
		patches: []string{
			patch[1], simulated("Deployment", "initContainers"),
			toolArgs("Deployment", `while true; do for host in api.services eu-api; do curl -sS -w ' %{http_code} %{ssl_verify_result}\n' "https://$host.mimecast.com/identity/whoami"; done; sleep 1; done`),
		},
	})
	n.kubectl("rollout", "status", "deployment/tool", "--timeout=5m")
	p := n.onlyPod("app.kubernetes.io/name=tool")
	await(t, "the tool's requests", func() bool { return strings.Count(n.logs(p, "tool"), "\n") >= 2 })
	n.checkOrder(p)
	if text := n.logs(p, "tool"); strings.Count(text, found) < 2 || !strings.Contains(text, " 200 0\n") {
		t.Errorf("the tool got %s", text)
	}
}
