#!/bin/sh
# What the image runs: the script that the first word names, else train.py.
#   docker run … carcls backbone=xception            python train.py backbone=xception
#   docker run … carcls predict.py ckpt=outputs/RUN  python predict.py ckpt=outputs/RUN
set -eu

# A folder of each user's own: what one has decoded or downloaded, another could not add to.
cache=${CARCLS_CACHE:-/cache}/$(id -u)
if ! mkdir -p "$cache" 2>/dev/null; then
  cache=$(mktemp -d)
  echo "${CARCLS_CACHE:-/cache} cannot be written by user $(id -u): what is decoded and downloaded is not kept." >&2
fi
export HOME="$cache" XDG_CACHE_HOME="$cache" KERAS_HOME="$cache/keras" MPLCONFIGDIR="$cache/matplotlib"

if [ ! -w outputs ]; then
  echo "outputs cannot be written by user $(id -u); it belongs to user $(stat -c %u outputs)." \
    "Make it before the container starts (mkdir -p outputs; Docker makes it as root)," \
    "and add --user \$(id -u):\$(id -g)." >&2
fi
# A device file of the driver, under Linux or under WSL.
if [ ! -e /dev/nvidiactl ] && [ ! -e /dev/dxg ]; then
  echo "No GPU in this container: networks run on the CPU. --gpus all gives it those of the host." >&2
fi

case "${1:-}" in
  *.py) exec python "$@" ;;
  *) exec python train.py "$@" ;;
esac
