{{- define "mimecast-proxy.fullname" -}}
{{- if contains "mimecast-proxy" .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-mimecast-proxy" .Release.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "mimecast-proxy.selector" -}}
app.kubernetes.io/name: mimecast-proxy
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "mimecast-proxy.releaseLabels" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "mimecast-proxy.labels" -}}
app.kubernetes.io/name: mimecast-proxy
{{ include "mimecast-proxy.releaseLabels" . }}
{{- end }}

{{- /* Prometheus and Grafana may select by further labels. */}}
{{- define "mimecast-proxy.monitoringLabels" -}}
{{ include "mimecast-proxy.labels" . }}
{{- with .Values.monitoring.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "mimecast-proxy.serviceAccountName" -}}
{{- if and .Values.serviceAccount.create (eq .Values.shape "gateway") }}{{ .Values.serviceAccount.name | default (include "mimecast-proxy.fullname" .) }}{{ else }}{{ .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "mimecast-proxy.image" -}}
name: mimecast-proxy
{{- with .Values.image }}
image: {{ ternary (printf "%s@%s" .repository .digest) (printf "%s:%s" .repository (default $.Chart.AppVersion .tag)) (ne .digest "") | quote }}
imagePullPolicy: {{ .pullPolicy }}
{{- end }}
{{- end }}

{{- /* What the container is in both shapes. /startupz passes after 60 s at most. */}}
{{- define "mimecast-proxy.container" -}}
{{ include "mimecast-proxy.image" . }}
startupProbe:
  httpGet: {path: /startupz, port: mimecast-admin}
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /livez, port: mimecast-admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{- /* The variables that the chart sets, in both shapes. */}}
{{- define "mimecast-proxy.env" -}}
{{- if .Values.credentialsSecret }}
- {name: MIMECAST_CLIENT_ID_FILE, value: /var/run/mimecast/client-id}
- {name: MIMECAST_CLIENT_SECRET_FILE, value: /var/run/mimecast/client-secret}
{{- end }}
{{- if eq .Values.shape "gateway" }}
{{- $name := include "mimecast-proxy.fullname" . }}
{{- if .Values.clients.existingSecret }}
- {name: PROXY_CLIENTS_FILE, value: /var/run/mimecast-clients/{{ .Values.clients.file }}}
{{- else if .Values.gateway.apiKeySecret }}
- {name: PROXY_API_KEY_FILE, value: /var/run/mimecast-proxy/api-key}
{{- end }}
- {name: PROXY_LISTEN, value: "0.0.0.0:18080"}
- {name: PROXY_ADMIN_LISTEN, value: "0.0.0.0:19090"}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: PROXY_ALLOWED_HOSTS
  value: {{ list $name (printf "%s.$(POD_NAMESPACE)" $name) (printf "%s.$(POD_NAMESPACE).svc" $name) (printf "%s.$(POD_NAMESPACE).svc.cluster.local" $name) | concat .Values.gateway.allowedHosts | join "," }}
- {name: PROXY_SHUTDOWN_DELAY, value: {{ .Values.gateway.shutdownDelaySeconds }}s}
{{- else }}
- {name: PROXY_LISTEN, value: "127.0.0.1:18080"}
- {name: PROXY_ADMIN_LISTEN, value: "0.0.0.0:19090"}
{{- end }}
- name: GOMEMLIMIT
  valueFrom: {resourceFieldRef: {containerName: mimecast-proxy, resource: requests.memory}}
{{- range $name, $value := .Values.settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- range .Values.extraEnv }}
{{- if hasKey $.Values.settings .name }}{{ fail (printf "extraEnv and settings both set %s: set it once" .name) }}{{ end }}
- {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "mimecast-proxy.mounts" -}}
{{- if .Values.credentialsSecret }}
- {name: mimecast, mountPath: /var/run/mimecast, readOnly: true}
{{- end }}
{{- if eq .Values.shape "gateway" }}
{{- if .Values.clients.existingSecret }}
- {name: mimecast-clients, mountPath: /var/run/mimecast-clients, readOnly: true}
{{- else if .Values.gateway.apiKeySecret }}
- {name: mimecast-proxy-key, mountPath: /var/run/mimecast-proxy, readOnly: true}
{{- end }}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The group of a tool's pod is the tool's, and its volume is mounted into the proxy
alone: any user may read it there. */}}
{{- define "mimecast-proxy.volumes" -}}
{{- $mode := ternary "0440" "0444" (eq .Values.shape "gateway") }}
{{- if .Values.credentialsSecret }}
- name: mimecast
  secret: {secretName: {{ .Values.credentialsSecret }}, defaultMode: {{ $mode }}}
{{- end }}
{{- if eq .Values.shape "gateway" }}
{{- if .Values.clients.existingSecret }}
- name: mimecast-clients
  secret: {secretName: {{ .Values.clients.existingSecret }}, defaultMode: {{ $mode }}}
{{- else if .Values.gateway.apiKeySecret }}
- name: mimecast-proxy-key
  secret: {secretName: {{ .Values.gateway.apiKeySecret }}, defaultMode: {{ $mode }}}
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* 5353 is where OpenShift's DNS pods listen. */}}
{{- define "mimecast-proxy.dns" -}}
- {protocol: UDP, port: 53}
- {protocol: TCP, port: 53}
- {protocol: UDP, port: 5353}
- {protocol: TCP, port: 5353}
{{- end }}

{{- /* The container's security context in a pod whose own is not ours. */}}
{{- define "mimecast-proxy.ownSecurityContext" -}}
{{- $ofContainers := list "runAsNonRoot" "runAsUser" "runAsGroup" "seccompProfile" "appArmorProfile" "seLinuxOptions" }}
{{- $own := dict }}
{{- range $field, $value := .Values.podSecurityContext }}
{{- if has $field $ofContainers }}{{ $_ := set $own $field $value }}{{ end }}
{{- end }}
{{- toYaml (mergeOverwrite $own (deepCopy .Values.securityContext)) }}
{{- end }}

{{- /* The sidecar, for the initContainers of any pod. The pod also needs the volumes of
mimecast-proxy.volumes, and imagePullSecrets. */}}
{{- define "mimecast-proxy.sidecar" -}}
{{ include "mimecast-proxy.container" . }}
restartPolicy: Always
env:
  {{- include "mimecast-proxy.env" . | nindent 2 }}
ports:
  - {name: mimecast-admin, containerPort: 19090}
resources:
  {{- toYaml .Values.sidecar.resources | nindent 2 }}
securityContext:
  {{- include "mimecast-proxy.ownSecurityContext" . | nindent 2 }}
{{- with include "mimecast-proxy.mounts" . }}
volumeMounts:
  {{- . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* What a pod with the proxy alone is: the gateway's, and that of helm test. */}}
{{- define "mimecast-proxy.gatewayPod" -}}
automountServiceAccountToken: {{ .Values.serviceAccount.automount }}
{{- with include "mimecast-proxy.serviceAccountName" . }}
serviceAccountName: {{ . }}
{{- end }}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "mimecast-proxy.volumes" . }}
volumes:
  {{- . | nindent 2 }}
{{- end }}
{{- end }}
