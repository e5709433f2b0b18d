# The API and the worker are the same image; docker-compose.yml tells them apart.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY app app
COPY graph graph
COPY collectors collectors
COPY executors executors
COPY migrations migrations
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --constraint constraints.txt '.[console,embeddings]'

FROM python:3.13-slim
# A font with Hangul: without one, pictures in Slack and Jira are labelled in English.
RUN apt-get update && apt-get install --yes --no-install-recommends fonts-nanum && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 10001 autopilot
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
USER autopilot
WORKDIR /home/autopilot
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["autopilot"]
CMD ["serve", "--host", "0.0.0.0"]
