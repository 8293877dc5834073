# The planning service. No torch, no GPU: the estimates are arithmetic.
#
#   docker build --target server -t ctxplan .
#   docker run --rm -p 8000:8000 -v ctxplan:/data ctxplan

FROM python:3.13-slim AS builder

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
WORKDIR /src

# hatchling builds the project here and stays behind; the service's environment holds only what it runs on.
COPY requirements/build.txt requirements/
RUN python -m pip install --require-hashes -r requirements/build.txt

RUN python -m venv --without-pip /opt/ctxplan
COPY requirements/server.txt requirements/
RUN python -m pip --python /opt/ctxplan/bin/python install --require-hashes -r requirements/server.txt

COPY pyproject.toml README.md LICENSE ./
COPY estimator estimator
COPY ctxplan ctxplan
COPY probes probes
COPY app app
COPY evidence/tiers evidence/tiers
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && python -m pip --python /opt/ctxplan/bin/python install --no-deps /wheels/*.whl \
 && /opt/ctxplan/bin/python -m compileall -q /opt/ctxplan/lib


FROM python:3.13-slim AS server

RUN useradd --system --uid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin ctxplan \
 && install --directory --owner ctxplan --group ctxplan /data
COPY --from=builder /opt/ctxplan /opt/ctxplan

ENV PATH=/opt/ctxplan/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HF_HOME=/data/huggingface
USER ctxplan
# Cached model facts; everything else may be read-only.
WORKDIR /data
VOLUME /data
EXPOSE 8000

HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
CMD ["ctxplan", "serve", "--host", "0.0.0.0", "--port", "8000"]
