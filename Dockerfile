# The manager's image: one image, every process of the Procfile. `docker run IMAGE web`, `… worker`,
# `… watcher`, and so on; DATA_DIR and REDIS_URL come from outside.

FROM python:3.11-slim-bookworm AS packages
COPY requirements-image.lock .
# An optional certificate bundle, for builders whose way to the package index needs one.
RUN --mount=type=secret,id=ca \
    python -m venv /opt/venv && \
    if [ -f /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi && \
    /opt/venv/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements-image.lock

FROM python:3.11-slim-bookworm AS manager
RUN useradd --uid 1000 --user-group --no-create-home --home-dir /srv manager
COPY --from=packages /opt/venv /opt/venv
WORKDIR /srv
COPY Procfile ./
COPY scripts/lib/process scripts/lib/
COPY app app
COPY workers workers
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/srv \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DATA_DIR=/tmp/data \
    BIND=0.0.0.0
USER 1000:1000
EXPOSE 8000
ENTRYPOINT ["scripts/lib/process"]
CMD ["web"]
