"""Jobs on Ray, each for itself: one whose process keeps dying ends none of the others.

As hydra-ray-launcher does, with its configuration and its function for a job. But that waits for
all jobs in order, so that the first which raises ends the wait, this process, and with it all jobs;
and it gives its Ray a size that a cluster which is there already refuses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import open_dict

LAUNCHER = "RayLauncher"  # the class in hydra-ray-launcher
_OBJECT_STORE_BYTES = 78_643_200  # as it has it: jobs hand nothing on but how they ended


def run_on_ray(
    launcher: Launcher,
    jobs: Sequence[tuple[int, list[str]]],
    ended: Callable[[int, JobReturn | BaseException], None],
) -> None:
    """Runs jobs and returns when all have ended.

    After Ctrl-C those that run may save what they reached, and no other is started; a second one
    kills them.

    Args:
        launcher: What was set up with Ray's configuration.
        jobs: Number and overrides of each.
        ended: Called with the number of a job that has ended, and with what came back, or why
            nothing did.

    Raises:
        KeyboardInterrupt: If it was stopped; when all have ended.
    """
    import ray
    from hydra_plugins.hydra_ray_launcher._launcher_util import launch_job_on_ray, start_ray

    init = launcher.ray_cfg.init
    if not init.get("address") and "RAY_ADDRESS" not in os.environ:  # one that is there has its own
        init.setdefault("object_store_memory", _OBJECT_STORE_BYTES)
    start_ray(init)
    numbers = {}
    for number, overrides in jobs:
        cfg = launcher.hydra_context.config_loader.load_sweep_config(launcher.config, overrides)
        with open_dict(cfg):
            cfg.hydra.job.id = cfg.hydra.job.num = number
        task = launch_job_on_ray(
            launcher.hydra_context, launcher.ray_cfg.remote, cfg, launcher.task_function,
            Singleton.get_state(),
        )  # fmt: skip
        numbers[task] = number
    is_stopped = False
    while numbers:
        try:
            (task, *_), _ = ray.wait(list(numbers))
        except KeyboardInterrupt:
            print("\nStopping: the jobs that run save what they reached.", flush=True)
            for task in numbers:
                ray.cancel(task, force=is_stopped)
            is_stopped = True
            continue
        number = numbers.pop(task)
        try:
            answer = ray.get(task)
        except ray.exceptions.RayError as error:  # its process died too often
            answer = KeyboardInterrupt() if is_stopped else error
            if isinstance(error, ray.exceptions.RayTaskError) and not is_stopped:
                answer = JobReturn(status=JobStatus.FAILED)  # our code is not there, say
                answer.return_value = error.cause
        ended(number, answer)
    if is_stopped:
        raise KeyboardInterrupt
