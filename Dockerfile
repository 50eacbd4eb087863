# syntax=docker/dockerfile:1
# docker build --target cpu  -t upbeat .
# docker build --target cuda -t upbeat:cuda .      (run with --gpus all)
# docker run -p 127.0.0.1:50051:50051 upbeat
#
# Everything is built here and nothing at the start. The container listens in plain text to whoever can reach it, so
# publish its port on loopback or inside a private network, or mount a settings file with TLS over /app/upbeat.toml
# (the health check below speaks plain text; replace it then, --health-cmd).

ARG PYTHON=3.11
FROM python:${PYTHON}-slim AS build
# pip options for torch alone, such as an index of wheels without CUDA, which make the cpu image 4 GB smaller.
ARG TORCH_OPTIONS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
WORKDIR /app
RUN python -m venv /opt/venv
COPY constraints.txt pyproject.toml ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
      open('requirements.txt', 'w').write('\n'.join(project['dependencies'])); \
      open('requirements-gpu.txt', 'w').write('\n'.join(project['optional-dependencies']['gpu']))"
RUN pip install ${TORCH_OPTIONS} -c constraints.txt torch \
 && pip install -c constraints.txt -r requirements.txt
COPY . .
# The user who runs it may read everything, whatever the umask of the checkout was.
RUN pip install --no-deps -e . \
 && chmod -R a+rX . \
 && python -m compileall -q clients kernels pipelines protos server

FROM build AS build-cuda
RUN pip install -c constraints.txt -r requirements-gpu.txt

FROM python:${PYTHON}-slim AS base
RUN useradd --create-home --uid 10001 upbeat
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
EXPOSE 50051
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
  CMD ["python", "-m", "clients.health", "127.0.0.1:50051"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "server", "--config", "/app/upbeat.toml"]

# Triton compiles its kernels when they are first used, and needs a C compiler for that.
FROM base AS cuda
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=build-cuda /opt/venv /opt/venv
COPY --from=build-cuda /app /app
RUN printf 'listen = "0.0.0.0:50051"\ninsecure = true\n\n[device]\ndevice = "cuda"\ndtype = "bfloat16"\n' > upbeat.toml
USER upbeat

FROM base AS cpu
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
RUN printf 'listen = "0.0.0.0:50051"\ninsecure = true\n' > upbeat.toml
USER upbeat
