package deploy_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// idRange is a range of IDs that OpenShift assigned to a project.
type idRange struct{ first, last int64 }

// project is a project's range, as in its namespace's annotations openshift.io/sa.scc.*.
var project = idRange{1000680000, 1000689999}

func (r idRange) has(id int64) bool { return r.first <= id && id <= r.last }

// volumesOfRestricted are the volume sources that restricted-v2 allows.
var volumesOfRestricted = []string{
	"ConfigMap", "CSI", "DownwardAPI", "EmptyDir", "Ephemeral", "PersistentVolumeClaim", "Projected", "Secret",
}

// admitRestricted applies the security context constraints restricted-v2: it sets the
// defaults and returns what they reject. It follows OpenShift's documentation, because
// OpenShift's own code depends on all of Kubernetes.
func admitRestricted(pod *corev1.PodSpec, annotations map[string]string) (rejected []string) {
	reject := func(format string, args ...any) { rejected = append(rejected, fmt.Sprintf(format, args...)) }
	if pod.HostNetwork || pod.HostPID || pod.HostIPC {
		reject("a namespace of the host")
	}
	for name := range annotations {
		if strings.HasPrefix(name, "seccomp.security.alpha.kubernetes.io/") {
			reject("annotation %s", name)
		}
	}
	for _, v := range pod.Volumes {
		source := reflect.ValueOf(v.VolumeSource)
		for i := range source.NumField() {
			if kind := source.Type().Field(i).Name; !source.Field(i).IsZero() && !slices.Contains(volumesOfRestricted, kind) {
				reject("volume %s: %s", v.Name, kind)
			}
		}
	}
	if pod.SecurityContext == nil {
		pod.SecurityContext = &corev1.PodSecurityContext{}
	}
	s := pod.SecurityContext
	if s.FSGroup == nil { // MustRunAs
		s.FSGroup = &project.first
	}
	if !project.has(*s.FSGroup) {
		reject("fsGroup %d", *s.FSGroup)
	}
	if s.SELinuxOptions != nil {
		reject("SELinux options, which are the project's")
	}
	checkSeccomp := func(where string, p *corev1.SeccompProfile) {
		if p != nil && p.Type != corev1.SeccompProfileTypeRuntimeDefault {
			reject("%s: seccomp %s", where, p.Type)
		}
	}
	checkSeccomp("pod", s.SeccompProfile)
	if len(s.Sysctls) > 0 {
		reject("sysctls")
	}
	for _, containers := range [][]corev1.Container{pod.InitContainers, pod.Containers} {
		for i := range containers {
			c := &containers[i]
			if c.SecurityContext == nil {
				c.SecurityContext = &corev1.SecurityContext{}
			}
			own := c.SecurityContext
			if own.RunAsUser == nil { // MustRunAsRange
				own.RunAsUser = s.RunAsUser
			}
			if own.RunAsUser == nil {
				own.RunAsUser = &project.first
			}
			if !project.has(*own.RunAsUser) {
				reject("%s: runAsUser %d", c.Name, *own.RunAsUser)
			}
			if own.Privileged != nil && *own.Privileged || own.AllowPrivilegeEscalation != nil && *own.AllowPrivilegeEscalation {
				reject("%s: privileges", c.Name)
			}
			own.AllowPrivilegeEscalation = new(bool)
			if own.Capabilities == nil {
				own.Capabilities = &corev1.Capabilities{}
			}
			for _, added := range own.Capabilities.Add {
				if added != "NET_BIND_SERVICE" {
					reject("%s: capability %s", c.Name, added)
				}
			}
			own.Capabilities.Drop = []corev1.Capability{"ALL"}
			if own.SELinuxOptions != nil {
				reject("%s: SELinux options", c.Name)
			}
			checkSeccomp(c.Name, own.SeccompProfile)
			for _, port := range c.Ports {
				if port.HostPort != 0 {
					reject("%s: host port %d", c.Name, port.HostPort)
				}
			}
		}
	}
	return rejected
}

// checkReadable reports Secrets whose files a container cannot read. The container reads by
// the pod's volume group if there is one, and otherwise as any other user.
func checkReadable(t *testing.T, pod corev1.PodSpec, c corev1.Container) {
	t.Helper()
	for _, m := range c.VolumeMounts {
		for _, v := range pod.Volumes {
			mode := int32(0o444)
			if v.Name != m.Name || v.Secret == nil {
				continue
			}
			if v.Secret.DefaultMode != nil {
				mode = *v.Secret.DefaultMode
			}
			if mode&0o004 == 0 && (mode&0o040 == 0 || pod.SecurityContext == nil || pod.SecurityContext.FSGroup == nil) {
				t.Errorf("%s cannot read %s, of mode %04o", c.Name, v.Name, mode)
			}
		}
	}
}

// noIDs has the values for a cluster that assigns the IDs.
var noIDs = values{"podSecurityContext": values{"runAsUser": nil, "runAsGroup": nil, "fsGroup": nil}}

// theirTool is a vendor's workload for OpenShift, which sets no IDs.
func theirTool(t *testing.T) map[string]any {
	t.Helper()
	job := tool(t, "job")
	pod := job["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
	pod["securityContext"] = map[string]any{"runAsNonRoot": true, "seccompProfile": map[string]any{"type": "RuntimeDefault"}}
	return job
}

func TestOpenShiftAdmitsWhatHasNoIDs(t *testing.T) {
	sidecar := values{"shape": "sidecar", "sidecar": values{"workloads": []any{theirTool(t)}}}
	renderings := map[string][]byte{
		"gateway": mustHelm(t, noIDs),
		"clients": mustHelm(t, with(noIDs, values{"clients": values{"existingSecret": "teams"}})),
		"sidecar": mustHelm(t, with(noIDs, sidecar)),
		"test":    helmTest(t, noIDs),
	}
	for _, example := range []string{"openshift", "openshift-job"} {
		renderings["kustomize "+example] = kustomize(t, filepath.Join(manifests, "examples", example))
	}
	for name, text := range renderings {
		pods := 0
		for _, object := range decode(t, text) {
			template := pod(object)
			if template == nil {
				continue
			}
			pods++
			if rejected := admitRestricted(&template.Spec, template.Annotations); rejected != nil {
				t.Errorf("%s: %v", name, rejected)
			}
			for _, c := range slices.Concat(template.Spec.InitContainers, template.Spec.Containers) {
				checkReadable(t, template.Spec, c)
			}
		}
		if pods != 1 {
			t.Errorf("%s: %d pods", name, pods)
		}
	}
}

func TestOpenShiftRejectsWhatItDoes(t *testing.T) {
	yes, no := true, false
	for want, change := range map[string]func(*corev1.PodSpec){
		"runAsUser 65532": func(p *corev1.PodSpec) { p.SecurityContext.RunAsUser = ref(int64(65532)) },
		"fsGroup 65532":   func(p *corev1.PodSpec) { p.SecurityContext.FSGroup = ref(int64(65532)) },
		"a namespace":     func(p *corev1.PodSpec) { p.HostNetwork = true },
		"HostPath": func(p *corev1.PodSpec) {
			p.Volumes[0].VolumeSource = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{}}
		},
		"privileges": func(p *corev1.PodSpec) { p.Containers[0].SecurityContext.AllowPrivilegeEscalation = &yes },
		"capability NET_ADMIN": func(p *corev1.PodSpec) {
			p.Containers[0].SecurityContext.Capabilities.Add = []corev1.Capability{"NET_ADMIN"}
		},
		"seccomp Unconfined": func(p *corev1.PodSpec) { p.SecurityContext.SeccompProfile.Type = corev1.SeccompProfileTypeUnconfined },
		"host port":          func(p *corev1.PodSpec) { p.Containers[0].Ports[0].HostPort = 80 },
		"":                   func(p *corev1.PodSpec) { p.Containers[0].SecurityContext.Privileged = &no },
	} {
		template := gatewayPod(t, mustHelm(t, noIDs))
		change(&template.Spec)
		if rejected := strings.Join(admitRestricted(&template.Spec, nil), "; "); !strings.Contains(rejected, want) || (want == "") != (rejected == "") {
			t.Errorf("%q instead of %q", rejected, want)
		}
	}
	if rejected := admitRestricted(&gatewayPod(t, mustHelm(t, nil)).Spec, nil); len(rejected) != 2 {
		t.Errorf("the default IDs: %v", rejected)
	}
}

func ref[T any](v T) *T { return &v }

// gatewayPod returns the pod template of a rendering with one workload.
func gatewayPod(t *testing.T, text []byte) *corev1.PodTemplateSpec {
	t.Helper()
	for _, object := range decode(t, text) {
		if template := pod(object); template != nil {
			return template
		}
	}
	t.Fatal("no pod")
	return nil
}

// OpenShift runs the program as a user that the image does not define, in group 0. Only the
// volume's group can read the files.
func TestProgramRunsAsAnyUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can run it as another user")
	}
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	n := newNode(t)
	environ := []string{"MIMECAST_BASE_URL=" + n.sim.URL}
	files := map[string]string{"PROXY_API_KEY_FILE": "a-key-for-the-tests-only"}
	for name, text := range map[string]string{"CLIENT_ID": secrets["mimecast"]["client-id"], "CLIENT_SECRET": secrets["mimecast"]["client-secret"], "CA": string(n.sim.CA)} {
		files["MIMECAST_"+name+"_FILE"] = text
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o440); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, 0, int(project.first)); err != nil {
			t.Fatal(err)
		}
		environ = append(environ, name+"="+path)
	}
	binary := filepath.Join(dir, "mimecast-proxy")
	if err := os.Link(n.binary, binary); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the other user must be able to enter it
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "check")
	cmd.Env, cmd.Dir = append(environ, "PROXY_LISTEN=0.0.0.0:18080"), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(project.last), Groups: []uint32{uint32(project.first)}}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
