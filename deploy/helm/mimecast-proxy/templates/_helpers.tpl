{{- define "mimecast-proxy.fullname" -}}
{{- if contains "mimecast-proxy" .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-mimecast-proxy" .Release.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "mimecast-proxy.selector" -}}
app.kubernetes.io/name: mimecast-proxy
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "mimecast-proxy.labels" -}}
{{ include "mimecast-proxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* Prometheus and Grafana may select by further labels. */}}
{{- define "mimecast-proxy.monitoringLabels" -}}
{{ include "mimecast-proxy.labels" . }}
{{- with .Values.monitoring.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* What the container is in both shapes. */}}
{{- define "mimecast-proxy.container" -}}
name: mimecast-proxy
image: {{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
startupProbe:
  httpGet: {path: /startupz, port: mimecast-admin}
  periodSeconds: 1
  failureThreshold: 600
livenessProbe:
  httpGet: {path: /livez, port: mimecast-admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}

{{- define "mimecast-proxy.credentials" -}}
- {name: MIMECAST_CLIENT_ID_FILE, value: /var/run/mimecast/client-id}
- {name: MIMECAST_CLIENT_SECRET_FILE, value: /var/run/mimecast/client-secret}
{{- end }}

{{- define "mimecast-proxy.settings" -}}
- name: GOMEMLIMIT
  valueFrom: {resourceFieldRef: {containerName: mimecast-proxy, resource: requests.memory}}
{{- range $name, $value := .Values.settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{- /* 5353 is where OpenShift's DNS pods listen. */}}
{{- define "mimecast-proxy.dns" -}}
- {protocol: UDP, port: 53}
- {protocol: TCP, port: 53}
- {protocol: UDP, port: 5353}
- {protocol: TCP, port: 5353}
{{- end }}

{{- define "mimecast-proxy.locked" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* The sidecar, for the initContainers of any pod. The pod's volumes need
mimecast-proxy.volume. */}}
{{- define "mimecast-proxy.sidecar" -}}
{{ include "mimecast-proxy.container" . }}
restartPolicy: Always
env:
  {{- include "mimecast-proxy.credentials" . | nindent 2 }}
  - {name: PROXY_LISTEN, value: "127.0.0.1:18080"}
  - {name: PROXY_ADMIN_LISTEN, value: "0.0.0.0:19090"}
  {{- include "mimecast-proxy.settings" . | nindent 2 }}
ports:
  - {name: mimecast-admin, containerPort: 19090}
resources:
  {{- toYaml .Values.sidecar.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  {{- include "mimecast-proxy.locked" . | nindent 2 }}
  seccompProfile: {type: RuntimeDefault}
volumeMounts:
  - {name: mimecast, mountPath: /var/run/mimecast, readOnly: true}
{{- end }}

{{- define "mimecast-proxy.volume" -}}
name: mimecast
secret: {secretName: {{ .Values.credentialsSecret }}, defaultMode: 0444}
{{- end }}
