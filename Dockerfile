# syntax=docker/dockerfile:1
# A static binary and the CA roots, nothing else: no shell, no package manager,
# a numeric user that is not root.
FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm AS build
ARG TARGETOS TARGETARCH VERSION=""
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags="-s -w -X mimecast-proxy/app.Version=$VERSION" -o /mimecast-proxy .

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /mimecast-proxy /mimecast-proxy
USER 65532:65532
EXPOSE 8080
# The listener stays on loopback unless told otherwise; docs/containers.md shows
# how to open it to a pod, to a compose network, or with an API key.
HEALTHCHECK --interval=30s --timeout=6s --start-period=30s CMD ["/mimecast-proxy", "healthcheck"]
ENTRYPOINT ["/mimecast-proxy"]
