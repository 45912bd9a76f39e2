# Trains on a GPU host, and without a GPU too (it says which):
#   docker build -t carcls .
#   mkdir -p outputs
#   docker run --rm --gpus all --user $(id -u):$(id -g) -v $PWD/data:/app/data:ro \
#     -v $PWD/outputs:/app/outputs -v carcls-cache:/cache carcls backbone=efficientnetb3
# With predict.py, evaluate.py, compare.py or explore.py as the first word it runs that instead.
FROM python:3.11-slim-bookworm

WORKDIR /app
# Any user id may run it: what is written at run time may be written by all of them. data is here
# for the demo's photos; mounted, it can be read-only.
RUN install -d -m 1777 /cache data outputs

# What changes seldom comes first: a change of code is copied in seconds, one of requirements.txt
# leaves TensorFlow and CUDA alone.
COPY requirements-gpu.txt ./
RUN pip install --no-cache-dir -r requirements-gpu.txt
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt tensorboard==2.21.0

ENV PYTHONUNBUFFERED=1
COPY entrypoint.sh train.py predict.py evaluate.py compare.py explore.py ./
COPY conf conf
COPY carcls carcls
# Compiled here: who runs it cannot write beside the code.
RUN python -m compileall -q carcls

# --build-arg REVISION=$(git rev-parse HEAD); run.json has it as git_commit.
ARG REVISION=
ENV CARCLS_COMMIT=$REVISION
LABEL org.opencontainers.image.title="carcls" \
      org.opencontainers.image.description="Transfer learning for photo classification" \
      org.opencontainers.image.revision=$REVISION

USER 1000:1000
VOLUME ["/app/outputs", "/cache"]
# As Ctrl-C: training stops after its batch, measures and saves. Python as the first process of a
# container would ignore SIGTERM.
STOPSIGNAL SIGINT
ENTRYPOINT ["/app/entrypoint.sh"]
