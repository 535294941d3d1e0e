# The service on NVIDIA GPUs, with the container toolkit. Engines are built for the GPU at hand, once, into a volume:
#   docker build -f serve/docker/gpu.Dockerfile -t vivace-gpu .
#   docker run --gpus all -v built:/built --entrypoint python vivace-gpu export_onnx.py --precision fp16
#   docker run --gpus all -v built:/built --entrypoint python vivace-gpu build_trt.py --precision fp16
#   docker run --gpus all -p 8000:8000 -v built:/built -v jobs:/jobs vivace-gpu \
#       --device cuda --recipe optimize/recipes/gpu-fp16.toml --keys /jobs/keys.txt
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-dev python3-venv g++ \
    && rm -rf /var/lib/apt/lists/* && python3 -m venv /venv
ENV PATH=/venv/bin:$PATH VIVACE_BUILT=/built
WORKDIR /vivace
COPY requirements-gpu.txt requirements-serve.txt ./
RUN pip install --no-cache-dir -r requirements-gpu.txt -r requirements-serve.txt
COPY . .
RUN useradd --uid 10001 vivace && mkdir /jobs /built && chown vivace /jobs /built
USER vivace
VOLUME /jobs /built
EXPOSE 8000
HEALTHCHECK --start-period=300s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=5)"]
ENTRYPOINT ["python", "-m", "serve", "--home", "/jobs", "--host", "0.0.0.0"]
CMD ["--device", "cuda", "--recipe", "optimize/recipes/gpu-fp16.toml", "--keys", "/jobs/keys.txt"]
