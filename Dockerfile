# Headwater's daemon with its data in /data, listening on 4510 (HTTP, WebSocket) and 4511 (TCP).
#   docker build -t headwater . && docker run -p 4510:4510 -p 4511:4511 -v headwater:/data headwater

FROM debian:bookworm-slim AS builder
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/headwater
WORKDIR /build
# Dependencies first: this layer stays as long as the lock does.
COPY requirements-server.lock ./
RUN /opt/headwater/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements-server.lock
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY protocol protocol
COPY sdk sdk
COPY server server
COPY storage storage
RUN /opt/headwater/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM debian:bookworm-slim
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="headwater" \
      org.opencontainers.image.description="A database and sync server in one daemon" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 headwater \
    && useradd --system --uid 10001 --gid headwater --home-dir /data --no-create-home --shell /usr/sbin/nologin headwater \
    && install --directory --owner headwater --group headwater --mode 0700 /data
COPY --from=builder /opt/headwater /opt/headwater
# Loopback would be the container's own: here the port mapping decides who reaches the daemon.
ENV PATH=/opt/headwater/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    HEADWATER_DATA=/data \
    HEADWATER_HOST=0.0.0.0 \
    HEADWATER_TCP_WITHOUT_TLS=true
USER headwater
WORKDIR /data
VOLUME /data
EXPOSE 4510 4511
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-m", "headwater_server.health_check"]
ENTRYPOINT ["headwater"]
CMD ["serve"]
