"""The same toy work through this engine, plain Ray Tune, and Optuna on SQLite: CPU beyond the work, as ratios.

Every trial burns a known amount of CPU; all draw at random, with two workers, each system twice: what a trial costs is
the difference of a long and a short run, so that starting workers is left out (it is shown apart). CPU is that of this
process and all its descendants, looked up four times a second: nobody waits for workers of Ray that end, and their time
would be lost. Ray runs all the time, so what it takes when idle is in every row.

python tests/bench/bench_tune.py [LONG [SHORT]]    trials of the long and of the short run
"""

import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import core_seconds, environment, show, table
from toy_burn import burn, burn_spec

from layersearch.search.runner import Runner, RunSettings

__all__: list[str] = []

WORK_S = 0.01
BENCH = str(Path(__file__).parent)
OPTUNA = """
import sys, optuna
sys.path.append({bench!r})
from toy_burn import burn
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.load_study(study_name="a", storage={storage!r}, sampler=optuna.samplers.RandomSampler(seed={seed}))
def objective(trial):
    burn({iterations})
    return trial.suggest_int("n", 0, 1_000_000)
study.optimize(objective, n_trials={trials})
"""


def through_engine(backend: str) -> Callable[[Path, int, int], None]:
    def run(folder: Path, trials: int, iterations: int) -> None:
        folder.mkdir()
        spec = burn_spec(iterations=iterations, checkpoint_bytes=0, short=True)
        settings = RunSettings(
            evaluations=trials, population=1, driver="random", backend=backend, workers=2, rerank_top=0
        )
        assert Runner(folder, spec, settings).run() == "finished"

    return run


def through_tune(loggers: bool) -> Callable[[Path, int, int], None]:
    def run(folder: Path, trials: int, iterations: int) -> None:
        from ray import tune

        class Burn(tune.Trainable):  # type: ignore[misc, unused-ignore]
            def setup(self, config: dict[str, Any]) -> None: ...

            def reset_config(self, new_config: dict[str, Any]) -> bool:
                return True

            def step(self) -> dict[str, Any]:
                burn(iterations)
                return {"fitness": self.config["n"] % 1000 / 1000, "done": True}

        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "0" if loggers else "1"
        config = tune.TuneConfig(num_samples=trials, reuse_actors=True, max_concurrent_trials=2)
        never = tune.CheckpointConfig(checkpoint_at_end=False)
        run_config = tune.RunConfig(storage_path=str(folder), verbose=0, checkpoint_config=never)
        space = {"n": tune.randint(0, 1_000_000)}
        found = tune.Tuner(Burn, param_space=space, tune_config=config, run_config=run_config).fit()
        assert len(found) == trials
        assert not found.errors

    return run


def through_optuna(folder: Path, trials: int, iterations: int) -> None:
    import optuna

    folder.mkdir()
    storage = f"sqlite:///{folder}/study.db"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna.create_study(study_name="a", storage=storage, direction="maximize")
    code = [
        OPTUNA.format(bench=BENCH, storage=storage, seed=seed, iterations=iterations, trials=trials // 2)
        for seed in range(2)
    ]
    helpers = os.pathsep.join(filter(None, sys.path))
    workers = [subprocess.Popen([sys.executable, "-c", c], env={**os.environ, "PYTHONPATH": helpers}) for c in code]
    assert [worker.wait() for worker in workers] == [0, 0]


class Meter:
    """CPU time of this process and all descendants that it ever had."""

    def __init__(self) -> None:
        self._cpu: dict[tuple[int, int], int] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.seconds()
            time.sleep(0.25)

    def seconds(self) -> float:
        parents: dict[int, int] = {}
        found: dict[int, tuple[int, int]] = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                try:
                    fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                parents[int(folder.name)] = int(fields[1])
                found[int(folder.name)] = int(fields[19]), int(fields[11]) + int(fields[12])
        with self._lock:
            for pid, (born, ticks) in found.items():
                ancestor = pid
                while ancestor not in (0, os.getpid()):
                    ancestor = parents.get(ancestor, 0)
                if ancestor or (pid, born) in self._cpu:
                    self._cpu[pid, born] = ticks
            return sum(self._cpu.values()) / os.sysconf("SC_CLK_TCK")


SYSTEMS: dict[str, Callable[[Path, int, int], None]] = {
    "layersearch, pool": through_engine("pool"),
    "layersearch, ray": through_engine("ray"),
    "Ray Tune, no loggers": through_tune(loggers=False),
    "Ray Tune as it comes": through_tune(loggers=True),
    "Optuna, SQLite": through_optuna,
}


def measure(
    meter: Meter, run: Callable[[Path, int, int], None], folder: Path, long: int, short: int, n: int
) -> dict[str, float]:
    cpu, wall = [], []
    for trials in (short, long):
        begin, begin_s = meter.seconds(), time.perf_counter()
        run(folder.with_name(f"{folder.name}-{trials}"), trials, n)
        cpu.append(meter.seconds() - begin)
        wall.append(time.perf_counter() - begin_s)
    per_trial = (cpu[1] - cpu[0]) / (long - short)
    return {
        "core-ms per trial": 1e3 * per_trial,
        "beyond the work": 1e3 * (per_trial - WORK_S),
        "start, core-s": cpu[0] - short * per_trial,
        "wall ms per trial": 1e3 * (wall[1] - wall[0]) / (long - short),
    }


def main() -> None:
    long = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    short = int(sys.argv[2]) if len(sys.argv) > 2 else 50
    import ray

    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*sys.path, BENCH]))
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    n = int(2_000_000 / min(core_seconds(lambda: burn(2_000_000)) for _ in range(3)) * WORK_S)
    print(environment("ray", "optuna"))
    meter = Meter()
    rows: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, run in SYSTEMS.items():
            rows[name] = dict(measure(meter, run, Path(folder) / str(len(rows)), long, short, n))
            show(name, rows[name])
    base = float(str(rows["layersearch, ray"]["beyond the work"]))
    for row in rows.values():
        row["× layersearch, ray"] = float(str(row["beyond the work"])) / base
    table(f"trials of {1e3 * WORK_S:g} ms, {long} against {short} of them", rows)
    ray.shutdown()


if __name__ == "__main__":
    main()
