# The gateway with the clients of Qdrant and Neo4j. Build it from the project's root:
#   docker build --file docker/gateway.Dockerfile --tag kiki .
FROM python:3.12.11-slim-bookworm AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/kiki
COPY requirements/ requirements/
RUN /opt/kiki/bin/pip install --requirement requirements/serve.txt
COPY . .
RUN /opt/kiki/bin/pip install --constraint requirements/dev.txt ".[qdrant,neo4j]"

FROM python:3.12.11-slim-bookworm
# llama.cpp runs its threads with OpenMP.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1=12.2.0-14+deb12u1 \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 kiki \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin kiki \
 && install --directory --owner=kiki --group=kiki --mode=0700 /data /models \
 && install --directory --owner=kiki --group=kiki --mode=0750 /mixes
COPY --from=build /opt/kiki /opt/kiki
ENV PATH=/opt/kiki/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    KIKI_HOST=0.0.0.0 \
    KIKI_DATA_DIR=/data \
    KIKI_MODELS_DIR=/models \
    KIKI_LOG_FORMAT=json
USER 10001:10001
WORKDIR /data
VOLUME ["/data", "/models"]
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=10m --retries=3 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/live', timeout=4)"]
# Without a key the gateway refuses to listen to other machines: kiki keys create, or KIKI_API_KEYS.
ENTRYPOINT ["kiki"]
CMD ["serve"]
