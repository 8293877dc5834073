# Two images. `server` plans and keeps the queue: no torch, no GPU. `probe` lends a GPU to it: CUDA, real Unsloth.
#
#   docker build --target server -t ctxplan:0.1.0 .
#   docker build --target probe -t ctxplan-probe:0.1.0 .
#
# docs/containers.md has how each is run, and deploy/ has both for Compose and for Kubernetes.

ARG PYTHON_IMAGE=python:3.13-slim-trixie
ARG CUDA_IMAGE=nvidia/cuda:13.0.2-runtime-ubuntu24.04

FROM ${PYTHON_IMAGE} AS builder

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
WORKDIR /src

# hatchling builds the project here and stays behind; the service's environment holds only what it runs on.
COPY requirements/build.txt requirements/
RUN python -m pip install --require-hashes -r requirements/build.txt

COPY pyproject.toml README.md LICENSE ./
COPY estimator estimator
COPY ctxplan ctxplan
COPY probes probes
COPY app app
COPY evidence/tiers evidence/tiers
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .


FROM ${PYTHON_IMAGE} AS server-builder

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
WORKDIR /src

RUN python -m venv --without-pip /opt/ctxplan
COPY requirements/server.txt requirements/
RUN python -m pip --python /opt/ctxplan/bin/python install --require-hashes -r requirements/server.txt
COPY --from=builder /wheels /wheels
RUN python -m pip --python /opt/ctxplan/bin/python install --no-deps /wheels/*.whl \
 && /opt/ctxplan/bin/python -m compileall -q /opt/ctxplan/lib


FROM ${PYTHON_IMAGE} AS server

RUN useradd --system --uid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin ctxplan \
 && install --directory --mode 0700 --owner ctxplan --group ctxplan /data
COPY --from=server-builder /opt/ctxplan /opt/ctxplan

# The database, the keys' secret, calibrations and cached model facts are in /data; everything else may be read-only.
ENV PATH=/opt/ctxplan/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOME=/data HF_HOME=/data/huggingface \
    CTXPLAN_HOST=0.0.0.0 CTXPLAN_PORT=8000
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000

HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['CTXPLAN_PORT'] + '/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["ctxplan"]
CMD ["serve"]


FROM ${CUDA_IMAGE} AS probe

ENV DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
# triton compiles its launchers when a kernel is first used: it needs a C compiler and Python's headers at run time.
# The distribution keeps one version of each of its packages, so that a pinned one could not be installed next week.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev python3 python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/ctxplan \
 && useradd --system --uid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin ctxplan \
 && install --directory --mode 0700 --owner ctxplan --group ctxplan /data

# torch by the index's own choice of CUDA, then the rest of what Unsloth runs on, then Unsloth without its dependencies:
# requirements/probe.in says why.
WORKDIR /src
COPY requirements/probe.txt requirements/probe-nodeps.txt requirements/
RUN /opt/ctxplan/bin/python -m pip install -r requirements/probe.txt \
 && /opt/ctxplan/bin/python -m pip install --no-deps -r requirements/probe-nodeps.txt
COPY --from=builder /wheels /wheels
RUN /opt/ctxplan/bin/python -m pip install --no-deps /wheels/*.whl

# Results that wait to be sent, compiled kernels and cached model facts are in /data.
ENV PATH=/opt/ctxplan/bin:$PATH PYTHONUNBUFFERED=1 \
    HOME=/data HF_HOME=/data/huggingface XDG_CACHE_HOME=/data/cache XDG_STATE_HOME=/data/state \
    TRITON_CACHE_DIR=/data/cache/triton TORCHINDUCTOR_CACHE_DIR=/data/cache/inductor \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /data
VOLUME /data
STOPSIGNAL SIGTERM
ENTRYPOINT ["ctxplan"]
CMD ["worker"]
