# The service on processors. From the repository's folder:
#   docker build -f serve/docker/cpu.Dockerfile -t vivace-cpu .
#   docker run -v jobs:/jobs vivace-cpu --keys /jobs/keys.txt --add-key ada    # shown once
#   docker run -p 8000:8000 -v jobs:/jobs vivace-cpu
FROM python:3.12-slim
WORKDIR /vivace
COPY requirements.txt requirements-serve.txt ./
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -r requirements.txt -r requirements-serve.txt
COPY . .
# The graphs of the default recipe, so that a container starts at once.
RUN python export_onnx.py \
    && useradd --uid 10001 vivace && mkdir /jobs && chown -R vivace /jobs engines/built
USER vivace
VOLUME /jobs
EXPOSE 8000
HEALTHCHECK --start-period=120s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=5)"]
ENTRYPOINT ["python", "-m", "serve", "--home", "/jobs", "--host", "0.0.0.0"]
CMD ["--keys", "/jobs/keys.txt"]
