FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_CONSTRAINT=/src/requirements.lock
RUN python -m venv /opt/memoro
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY client client
COPY core core
COPY migrations migrations
COPY server server
COPY worker worker
RUN /opt/memoro/bin/pip install '.[cli,server,worker,local,openai]'

FROM python:3.12-slim
ENV PATH=/opt/memoro/bin:$PATH \
    PYTHONUNBUFFERED=1
RUN useradd --system --uid 10001 --home-dir /nonexistent --no-create-home memoro
COPY --from=build /opt/memoro /opt/memoro
USER 10001
# gRPC; operations of a server; operations of a worker.
EXPOSE 50051 8081 8082
# What is healthy depends on the command: docker-compose.yml has a check for each.
ENTRYPOINT ["memoro"]
CMD ["--help"]
