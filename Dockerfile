# syntax=docker/dockerfile:1
# A static binary, the CA roots, the licenses of both and a bill of materials,
# nothing else: no shell, no package manager, a numeric user that is not root.
#
#   docker build --build-arg VERSION=0.1.0 -t mimecast-proxy:0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 …
#
# The base is named by its exact version. If you build for others, add the
# digest that this prints: docker buildx imagetools inspect golang:1.26.11-bookworm
FROM --platform=$BUILDPLATFORM golang:1.26.11-bookworm AS build
# No defaults for these two: they would override --platform.
ARG TARGETOS TARGETARCH VERSION=devel REVISION=unknown
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download && go mod verify
COPY . .
# The same sources and version give the same bytes, in any directory.
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags="-s -w -X mimecast-proxy/app.Version=$VERSION -X mimecast-proxy/app.Revision=$REVISION" -o /out/mimecast-proxy .
RUN go run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0 \
    bin -json -noserial -notimestamp -version "$VERSION" -output /out/sbom.cdx.json /out/mimecast-proxy

# What the binary contains, and the CA roots, which are Mozilla's.
RUN go run ./deploy/licenses /out/licenses/THIRD_PARTY_LICENSES "$TARGETOS" && \
    cp LICENSE /out/licenses/ && \
    cp /usr/share/doc/ca-certificates/copyright /out/licenses/ca-certificates

FROM scratch
ARG VERSION=devel REVISION=unknown
LABEL org.opencontainers.image.title="mimecast-proxy" \
      org.opencontainers.image.description="An authenticating proxy for the Mimecast API 2.0" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/mimecast-proxy /mimecast-proxy
COPY --from=build /out/sbom.cdx.json /sbom.cdx.json
COPY --from=build /out/licenses /licenses
USER 65532:65532
EXPOSE 8080
# By default the proxy listens on loopback only; docs/containers.md shows how to
# open it to a pod, to a compose network, or with an API key.
HEALTHCHECK --interval=30s --timeout=6s --start-period=30s CMD ["/mimecast-proxy", "healthcheck"]
ENTRYPOINT ["/mimecast-proxy"]
