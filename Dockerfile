# The watchdog as a container, most of all as a sidecar (config/kubernetes/sidecar.yaml).
#
#   docker build -t spot-watchdog .
#   docker run --network host -v ./watchdog.toml:/etc/spot-watchdog/watchdog.toml:ro spot-watchdog
#
# Into an image of your own, as its entry point (docs/containers.md): COPY --from=spot-watchdog /usr/local/bin/watchdog ...
#
# Host network, because the metadata service's answer makes one network hop by default and a bridge is the second.

FROM rust:1.95-bookworm AS build
WORKDIR /build
# Cargo reads the whole manifest, so its tests and benchmarks have to be there; none of them is built.
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY config config
COPY tests tests
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin watchdog \
    && cp target/release/watchdog /watchdog

# Slim keeps what hooks are written in: sh, bash, coreutils, awk, find. The certificates are for the AWS APIs.
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/spot-watchdog --shell /usr/sbin/nologin spot-watchdog \
    && install -d -o spot-watchdog -g spot-watchdog -m 0700 /var/lib/spot-watchdog \
    && install -d -o spot-watchdog -g spot-watchdog -m 0755 /run/spot-watchdog \
    && install -d /etc/spot-watchdog
COPY --from=build /watchdog /usr/local/bin/watchdog
COPY config/hooks /usr/local/share/spot-watchdog/hooks
COPY config/probes /usr/local/share/spot-watchdog/probes

# A number, so that Kubernetes can see that it is not root.
USER 10001
# The journal, for which a volume may be mounted, and the notice file; the words are those that systemd uses.
ENV STATE_DIRECTORY=/var/lib/spot-watchdog \
    RUNTIME_DIRECTORY=/run/spot-watchdog
WORKDIR /var/lib/spot-watchdog
# The binary asks itself: an HTTP client in the image would be there for this line alone.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["watchdog", "status", "--probe", "livez"]
# As PID 1 it hands signals to its plan and collects the orphans that hooks leave.
ENTRYPOINT ["/usr/local/bin/watchdog"]
CMD ["run"]
