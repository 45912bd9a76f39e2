"""A loss that becomes NaN or infinite: the run stops, and the batch where it did is named."""

import math
from dataclasses import dataclass
from typing import Any

import keras

from carcls.data.records import TrainingPhotos, examples
from carcls.training.epochs import Epochs

_NAMED = 16  # photos in the message; run.json lists all

ADVICE = (
    "Try a lower optimizer.learning_rate (or finetune.stages.NAME.learning_rate), "
    "runtime.precision=float32 if it is another one, or look for broken photos among these."
)


@dataclass(kw_only=True)
class Divergence:
    """Where the loss was first not finite.

    Attributes:
        stage: Its name.
        epoch: Counted over all stages, from 1.
        batches: First and last of the execution in its epoch, from 1: the same one unless
            `runtime.steps_per_execution` is more.
        ids: Of all photos in these batches, as the data has them.
        paths: Where they lie.
    """

    stage: str
    epoch: int
    batches: tuple[int, int]
    ids: list[str]
    paths: list[str]

    def facts(self) -> dict[str, Any]:
        """For `run.json`, where it is `nan_batch`."""
        return vars(self) | {"batches": list(self.batches)}

    def __str__(self) -> str:
        first, last = self.batches
        batches = f"batch {first}" if first == last else f"one of the batches {first} to {last}"
        return (
            f"The loss became NaN or infinite in {batches} of epoch {self.epoch} (stage "
            f"{self.stage}), of these photos: {examples(self.paths, _NAMED)}."
        )


class StopWhenNotFinite(keras.callbacks.Callback):
    """Ends the training at the first batch whose loss is NaN or infinite, and says which it was.

    The loss that Keras hands to callbacks is the mean over the epoch so far: it is finite until
    the first batch whose own is not.

    Args:
        batches: That train, of which some may be left out at the start.
        records: Of the photos in them.
        stage: Its name.
        first_epoch: Epochs before this stage, which the loader counts on from.

    Attributes:
        found: Where; None as long as all is well.
    """

    def __init__(
        self, batches: Epochs, records: TrainingPhotos, stage: str, first_epoch: int
    ) -> None:
        super().__init__()
        self.batches = batches
        self.records = records
        self.stage = stage
        self.first_epoch = first_epoch
        self.found: Divergence | None = None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch = self.first_epoch + epoch

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self._first = batch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if self.found is not None or math.isfinite((logs or {}).get("loss", 0.0)):
            return
        loader, skipped = self.batches.feed.loader, self.batches.skipped
        first = self._first + skipped
        last = min(batch + skipped, len(loader) - 1)  # the last execution of an epoch may be short
        rows = [
            int(index)
            for place in range(first, last + 1)
            for index in loader.indices_of(self._epoch * len(loader) + place)
        ]
        table = self.records.table.iloc[rows]
        self.found = Divergence(
            stage=self.stage,
            epoch=self._epoch + 1,
            batches=(first + 1, last + 1),
            ids=table.id.tolist(),
            paths=table.path.tolist(),
        )
        self.model.stop_training = True
