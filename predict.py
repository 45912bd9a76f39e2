"""Predict with a trained run. `python predict.py --help` lists every option."""

from contextlib import suppress
from datetime import datetime
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from carcls.cli import run_app
from carcls.config import to_predict_config
from carcls.run import PREDICTION


def prediction_dir(ckpt: str | None) -> str:
    """Where a prediction goes by default: into the checkpoint's run, else below outputs/."""
    path = Path(ckpt).expanduser() if ckpt else None
    with suppress(OSError):  # a name that no file can have is told later
        if path is not None and path.exists():
            return str((path if path.is_dir() else path.parent) / PREDICTION)
    return f"outputs/{datetime.now():%Y-%m-%d_%H-%M-%S}_{PREDICTION}"


def main(cfg: DictConfig, workdir: Path) -> None:
    config = to_predict_config(cfg)  # every mistake in it is told before Keras loads
    from carcls.prediction.predict import predict

    predict(config, workdir)


if __name__ == "__main__":
    OmegaConf.register_new_resolver("prediction_dir", prediction_dir, use_cache=True)
    run_app("predict", main)
