# One image for every process: `web` (the default), `worker`, `scheduler` and `up`; docs/kubernetes.md and docs/one-host.md
# say how to run it. It works with a read-only root: only /var/lib/spendscope and /tmp are written.

FROM python:3.13.12-slim-trixie AS build
WORKDIR /opt/spendscope
COPY requirements.lock ./
# Wheels only: nothing is compiled and nothing is taken that the lock does not know by its hash.
RUN python -m venv --without-pip .venv \
    && pip --python .venv/bin/python install --no-cache-dir --disable-pip-version-check --no-compile \
        --require-hashes --no-deps --only-binary :all: -r requirements.lock \
    && find .venv -type d \( -name tests -o -name include \) -prune -exec rm -rf {} + \
    && find .venv -type f \( -name '*.pyx' -o -name '*.px[di]' -o -name '*.map' \) -delete
# Parts of pyarrow and plotly that Spendscope never loads (S3 is boto3's here, plotly.js is our own): 65 MB.
RUN find .venv \( -path '*/pyarrow/*flight*' -o -path '*/pyarrow/*s3*' -o -path '*/plotly/labextension' \
        -o -path '*/plotly/package_data/*.js' \) \
        -prune -exec rm -rf {} +
COPY app app
COPY workers workers
COPY assets assets
COPY docs/licences.md LICENCES.md
# Byte code is written here once, because a read-only root cannot keep it; the sources never change afterwards.
RUN pwd > "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/spendscope.pth" \
    && printf '#!/bin/sh\nexec /opt/spendscope/.venv/bin/python -m app.cli "$@"\n' > .venv/bin/spendscope \
    && chmod 0755 .venv/bin/spendscope \
    && .venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash .venv/lib app workers

FROM python:3.13.12-slim-trixie
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="Spendscope" \
      org.opencontainers.image.description="The self-hosted cloud cost dashboard whose figures can be checked" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="python:3.13.12-slim-trixie"
ENV PATH=/opt/spendscope/.venv/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SPENDSCOPE_DATA_DIR=/var/lib/spendscope \
    SPENDSCOPE_LOG_FORMAT=json
RUN groupadd --system --gid 10001 spendscope \
    && useradd --no-log-init --no-create-home --uid 10001 --gid 10001 --home-dir /tmp --shell /usr/sbin/nologin spendscope \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/spendscope
WORKDIR /opt/spendscope
COPY --from=build /opt/spendscope ./
USER 10001:10001
VOLUME /var/lib/spendscope
EXPOSE 8050
STOPSIGNAL SIGTERM
# Of the web server only: a container of a worker or scheduler turns it off (compose.yaml, k8s/).
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('SPENDSCOPE_PORT', '8050')}/healthz\", timeout=4)"]
ENTRYPOINT ["spendscope"]
CMD ["web"]
