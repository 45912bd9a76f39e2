"""Photos a second through the training loader, against one thread that decodes every time.

Both sides do the same work: demo photos to 240 px squares under the `photo` policy. Prints a table
and, last, the ratio. Usage: python benchmarks/loader.py
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from carcls.data.demo import draw_demo  # noqa: E402
from carcls.data.loader import Loader, Photos, default_workers  # noqa: E402
from carcls.data.transforms import build_augment  # noqa: E402

SIZE, ROUNDS = 240, 3


def rate(photos: Photos, workers: int) -> float:
    """The best of a few epochs, in photos a second."""
    policy = OmegaConf.to_container(OmegaConf.load(ROOT / "conf/augmentation/photo.yaml"))["train"]
    loader = Loader(
        photos,
        np.arange(len(photos)),
        np.zeros(len(photos)),
        batch_size=16,
        shuffle=True,
        augment=lambda: build_augment(policy),
        workers=workers,
    )
    seconds = []
    for epoch in range(ROUNDS):
        started = time.perf_counter()
        for _ in loader.epoch(epoch):
            pass
        seconds.append(time.perf_counter() - started)
    return len(photos) / min(seconds)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "demo"
        draw_demo(root, train_per_class=40, test_per_class=2)
        paths = sorted(str(path) for path in (root / "train").rglob("*.jpg"))
        from_files = Photos(paths, SIZE)
        in_memory = Photos(paths, SIZE)
        in_memory.decode_all(keep=True, workers=default_workers(), progress=lambda count: None)
        workers = default_workers()
        baseline = rate(from_files, 1)
        ours = rate(in_memory, workers)
        print(f"{'one thread, decoding every time':45} {baseline:7.0f} photos/s")
        print(f"{f'{workers} threads, decoding every time':45} {rate(from_files, workers):7.0f}")
        print(f"{'one thread, decoded once':45} {rate(in_memory, 1):7.0f}")
        print(f"{f'{workers} threads, decoded once (what training does)':45} {ours:7.0f}")
        print(f"ratio {ours / baseline:.2f}")


if __name__ == "__main__":
    main()
