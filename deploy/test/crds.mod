module mimecast-proxy/deploy/test

go 1.26.8

// Only downloaded, for the definitions of the kinds in k8s/examples.
require (
	github.com/argoproj/argo-cd/v3 v3.5.7
	github.com/cilium/cilium v1.20.2
	github.com/external-secrets/external-secrets v1.3.2
	istio.io/api v1.32.0
)
