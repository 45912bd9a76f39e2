# Trains on a GPU host, and without a GPU too (it says which):
#   docker build -t carcls .
#   docker run --gpus all --user $(id -u):$(id -g) -v $PWD/data:/app/data:ro \
#     -v $PWD/outputs:/app/outputs -v carcls-cache:/cache carcls backbone=efficientnetb3
# Predict through the same image: add --entrypoint python, then: predict.py ckpt=outputs/RUN
FROM python:3.11-slim

# The packages change seldom, the code often: a change of code rebuilds in seconds.
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt "tensorflow[and-cuda]==2.21.0"

# Any user id may run it: everything that is written at run time is writable to all of them.
RUN useradd --create-home carcls && install -d -m 1777 /cache /app/outputs
ENV HOME=/cache \
    XDG_CACHE_HOME=/cache \
    KERAS_HOME=/cache/keras \
    MPLCONFIGDIR=/cache/matplotlib \
    PYTHONUNBUFFERED=1
COPY train.py predict.py evaluate.py compare.py explore.py ./
COPY conf conf
COPY carcls carcls

USER carcls
VOLUME ["/app/outputs", "/cache"]
ENTRYPOINT ["python", "train.py"]
