"""What a run says before it starts and when it is over."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from carcls import run as files
from carcls.config import CsvData, DataConfig, FolderData, StageConfig, TrainConfig
from carcls.console import UNFOLDED, duration, facts, table
from carcls.data.pixel_cache import CacheReport
from carcls.data.records import examples
from carcls.training.inputs import Inputs
from carcls.training.resume import how_to_go_on

if TYPE_CHECKING:
    import keras

    from carcls.training.loop import Session


def title(config: TrainConfig) -> str:
    """What a run is, in a few words."""
    stages = config.finetune.stages.values()
    sizes = dict.fromkeys(stage.image_size or config.image_size for stage in stages)
    return (
        f"{config.backbone.name}, {config.head.name}, {config.finetune.name}, "
        f"{config.augmentation.name}, {', '.join(map(str, sizes))} px"
    )


def plan(config: TrainConfig, inputs: Inputs, model: keras.Model, device: str) -> str:
    """What will happen: device, photos, classes and split, parameters, the stages.

    Leaves the model frozen as for its last stage.
    """
    n_train = int(np.sum(~inputs.is_val))
    counts = inputs.class_counts()
    classes = [f"{name} ({n})" for name, n in zip(inputs.records.class_names, counts, strict=True)]
    skipped = len(inputs.records.skipped)
    pairs = [
        ("device", f"{device}, {config.runtime.precision}"),
        (
            "photos",
            f"{n_train} to train, {_validation(config, inputs)}; "
            + _how_read(inputs.cache[0])
            + (f"; {skipped} left out" if skipped else ""),
        ),
        ("classes", f"{len(classes)}: {examples(classes, 12)}"),
        (
            "model",
            f"{config.backbone.name} (weights: {config.backbone.weights}) + "
            f"{config.head.name}, {config.image_size}×{config.image_size} px"
            + f", {model.count_params() / 1e6:.1f} M parameters",
        ),
        (
            "training",
            f"augmentation {config.augmentation.name}, batches of {config.batch_size}"
            + (f" × {n}" if (n := config.gradient_accumulation) > 1 else "")
            + f", "
            f"{config.optimizer.name}, "
            f"{config.schedule.name}, keeps the {config.finetune.keep} epoch"
            + (f" by {config.finetune.monitor}" if config.finetune.keep == "best" else ""),
        ),
    ]
    cached = [name for name, stage in config.finetune.stages.items() if stage.feature_views]
    if cached:
        pairs.append(("cached", _cached(config, cached)))
    from carcls.models.classifier import backbone_of  # Keras is imported where a network is
    from carcls.models.freezing import freeze

    network = backbone_of(model)
    rows = []
    for name, stage in config.finetune.stages.items():
        layers = freeze(network, stage.trainable, config.finetune.batch_norm)
        trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
        batch_size = stage.batch_size or config.batch_size
        rows.append([
            name,
            f"{n} view{'s' if n > 1 else ''}" if (n := stage.feature_views)
            else (f"{stage.soup} × " if stage.soup > 1 else "")
            + f"{stage.epochs} × {-(-n_train // batch_size)}",
            f"{layers} of {len(network.layers)}", f"{trainable / 1e6:.2f} M",
            f"{stage.learning_rate:g}", _sizes(config, stage),
            str(batch_size),
        ])  # fmt: skip
    columns = [
        "stage", "epochs × steps", "backbone layers", "parameters that train", "learning rate",
        "photos", "batch",
    ]  # fmt: skip
    return f"\n{facts(pairs)}\n\n{table(columns, rows)}\n"


def _sizes(config: TrainConfig, stage: StageConfig) -> str:
    size, train_size = stage.image_size or config.image_size, config.train_size(stage)
    sizes = f"{size} px" if train_size == size else f"{train_size} px, validated at {size}"
    side = config.enlarged_to(stage)  # by the network
    return sizes if side is None else f"{sizes}, enlarged to {side}"


def _how_read(cache: CacheReport) -> str:
    """Whether photos are decoded once, at the size of the first stage."""
    if cache.state == "off":
        return "decoded anew in every epoch"
    return f"decoded once ({cache.num_bytes / 1e6:.0f} MB in the cache)"


def _cached(config: TrainConfig, stages: list[str]) -> str:
    """What is special about stages on cached features."""
    mixes = any(config.mixing(stage) for stage in config.finetune.stages.values())
    mixed = ", and these are not mixed" if mixes else ""
    return (
        f"in {examples(stages)} the backbone sees each view once, the head is fitted to their "
        f"features{mixed}"
    )


def _validation(config: TrainConfig, inputs: Inputs) -> str:
    """How many photos validate, who chose them, and which classes have none of them."""
    if config.data.refit:
        return "none to validate (data.refit=true)"
    table = inputs.records.table
    split = f"{config.data.val_split:.0%} of every class, seed {config.seed}"
    if inputs.fold:
        split = f"fold {inputs.fold} of {config.data.folds}, seed {config.seed}"
    elif "is_val" in table:
        split = "those of data.val_ids" if config.data.val_ids else "the data's own split"
    unseen = sorted(set(table.label) - set(table.label[inputs.is_val]))
    names = [inputs.records.class_names[i] for i in unseen]
    missing = f", none of {examples(names)}" if names else ""
    return f"{np.sum(inputs.is_val)} to validate ({split}){missing}"


def summary(session: Session, metrics: dict[str, Any], status: str) -> str:
    """What each stage reached, where everything is, and what to run next."""
    rows = [
        [name, str(epochs or "average"), _share(val_accuracy), duration(seconds)]
        for name, epochs, val_accuracy, seconds in map(astuple, session.stages)
    ]
    kept = metrics["kept_epoch"]
    ended = {
        "finished": "Finished",
        "interrupted": "Stopped by Ctrl-C",
        "diverged": "Stopped because the loss became NaN or infinite",
    }[status]
    workdir = files.shown(session.workdir)
    images = "" if lists_what_to_predict(session.config.data) else " images=PHOTO"
    pairs = [
        ("model", str(workdir / files.MODEL)),
        ("curves", str(workdir / files.CURVES)),
        ("history", str(workdir / files.HISTORY)),
        *([("validation", str(workdir / files.VAL_PREDICTIONS))] if metrics["n_val"] else []),
        ("predict with", f"python predict.py ckpt={files.shell_quoted(session.workdir)}{images}"),
        *(
            [("measure with", f"python evaluate.py ckpt={files.shell_quoted(session.workdir)}")]
            if metrics["n_val"]
            else []
        ),
        *([("go on with", how_to_go_on(session.workdir))] if status == "interrupted" else []),
    ]
    columns = ["stage", "epochs", "best val_accuracy", "time"]
    worth = (
        f"{metrics['val_accuracy']:.2%} of {metrics['n_val']} validation photos."
        if metrics["n_val"]
        else "it has seen all photos, so no validation number exists."
    )
    return (
        f"\n{table(columns, rows)}\n\n"
        f"{ended} after {duration(metrics['seconds'])}. The model kept is that of epoch {kept}: "
        f"{worth}\n\n{facts(pairs, UNFOLDED)}"
    )


def lists_what_to_predict(data: DataConfig) -> bool:
    """Whether the data says which photos to predict; class folders do by a folder test/."""
    if isinstance(data, CsvData):
        return data.test_csv is not None or data.split_column is not None
    return not isinstance(data, FolderData) or (Path(data.root) / "test").is_dir()


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
