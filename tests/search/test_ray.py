"""The Ray executor: lost and stopped workers, lost and late nodes, jobs that are too big; each is answered once."""

import itertools
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray_nodes import kill_node
from toy_space import toy_spec

from layersearch.errors import BadInputError, RunError
from layersearch.search.executors import _ray_workers as workers_module
from layersearch.search.executors import base
from layersearch.search.executors._ray_actor import Ready
from layersearch.search.executors._ray_workers import Call, Estimates, Item, Worker
from layersearch.search.executors.base import AS_MANY_AS_FIT, Resources
from layersearch.search.executors.ray import RayExecutor
from layersearch.spaces.contracts import Job, Outcome

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

Make = Callable[..., RayExecutor]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[RayExecutor] = []

    def build(workers: int = 2, resources: Resources | None = None, **space: Any) -> RayExecutor:
        spec = toy_spec(**{"reject_every": 0} | space)
        made.append(RayExecutor(spec, spec.build(), workers, resources=resources))
        return made[-1]

    yield build
    for executor in made:
        executor.close(now=True)
        begun = time.monotonic()
        executor.close(now=True)
        assert time.monotonic() - begun < 5


def submit(executor: RayExecutor, *genomes: int) -> None:
    for genome in genomes:
        executor.submit(Job(genome, "quality", {"n": genome}, seed=genome))


class Answers(dict[int, tuple[Job, Outcome]]):
    """By candidate; a second answer to the same job is an error."""

    def take(self, executor: RayExecutor, timeout_s: float) -> None:
        for job, outcome in executor.results(timeout_s):
            assert job.candidate not in self, "a job was answered twice"
            self[job.candidate] = job, outcome

    def all_of(self, executor: RayExecutor, n: int) -> "Answers":
        end = time.monotonic() + 120
        while len(self) < n and time.monotonic() < end:
            self.take(executor, 1.0)
        assert len(self) == n, "a job was lost"
        assert executor.results(0.2) == []
        return self


def starts(log: Path) -> "Counter[int]":
    """How often each candidate was begun, from the log that the toy space writes at that moment."""
    lines = log.read_text().splitlines() if log.exists() else []
    return Counter(int(line.split()[0]) for line in lines)


def running(executor: RayExecutor, log: Path, found: Answers, node: str | None = None) -> tuple[Worker, int]:
    """Waits until a worker (of ``node``) is in the middle of a stage: it was begun, and is not answered."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found.take(executor, 0.05)
        begun = starts(log)
        for worker in executor._workers.values():
            fresh = time.monotonic() - worker.head_since < 0.4
            if worker.calls and fresh and worker.ready is not None and node in (None, worker.ready.node):
                job = worker.calls[0].items[0].job
                if begun[job.candidate] and not worker.calls[0].future.done():
                    return worker, job.candidate
    raise AssertionError("no stage was seen running")


def pid_of(worker: Worker) -> int:
    """Process of an idle worker."""
    import ray

    found = ray.get(worker.actor.__ray_call__.remote(lambda _: os.getpid()), timeout=20)
    assert isinstance(found, int)
    return found


def ready(executor: RayExecutor, n: int) -> list[Worker]:
    """Waits until ``n`` workers are ready."""
    submit(executor, 900)  # with nothing to wait for, nothing is taken in
    found = Answers()
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found.take(executor, 0.1)
        there = [worker for worker in executor._workers.values() if worker.ready is not None]
        if len(there) >= n and found:
            return there
        if found:
            found.clear()
            submit(executor, 900)
    raise AssertionError("no workers")


def test_a_job_whose_worker_dies_runs_once_more(make: Make) -> None:
    executor = make(tricks={"2": "die", "3": "die-once"})
    submit(executor, *range(1, 9))
    found = Answers().all_of(executor, 8)
    assert {g for g, (_, o) in found.items() if o.state != "passed"} == {2}
    assert found[2][1].reason.startswith("the worker died (")
    assert "\n" not in found[2][1].reason
    assert (found[2][0].attempt, found[3][0].attempt) == (1, 1)


def test_a_worker_killed_in_the_middle_of_a_batch_costs_only_tries(make: Make) -> None:
    executor = make(workers=1, tricks={"225": "die"}, sleep_s=0.01)
    submit(executor, *range(200, 210))
    found = Answers().all_of(executor, 10)
    submit(executor, *range(210, 260))
    found.all_of(executor, 60)
    assert {g for g, (_, o) in found.items() if o.state != "passed"} == {225}
    charged = {g for g, (job, _) in found.items() if job.attempt}
    assert 225 in charged
    assert 1 < len(charged) < 25, "those of its batch, and not those of the calls behind it"


def test_a_lost_stage_goes_on_from_where_it_was_saved_last(make: Make) -> None:
    """``half`` of it is what the toy asserts on; the outcome is that of an undisturbed stage."""
    answers = []
    for tricks in ({}, {"2": "saved", "3": "saved-once"}):
        executor = make(tricks=tricks)
        submit(executor, 2, 3, 4)
        answers.append(Answers().all_of(executor, 3))
        executor.close(now=True)  # two at a time may each have one CPU of two, and what dies loses its own to the other
    undisturbed, found = answers
    assert {g: o for g, (_, o) in found.items()} == {g: o for g, (_, o) in undisturbed.items()}
    assert {g: (job.attempt, job.checkpoint) for g, (job, _) in found.items()} == {
        2: (1, b"half of 2 2"),
        3: (1, b"half of 3 3"),
        4: (0, None),
    }


def test_a_stage_over_its_time_limit_starts_again_from_its_beginning(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_GRACE_S", 1.0)
    executor = make(tricks={"2": "saved", "3": "saved-once"}, limit_s=0.5)
    submit(executor, 2, 3)
    found = Answers().all_of(executor, 2)
    assert {g: (o.state, job.checkpoint) for g, (job, o) in found.items()} == {2: ("failed", None), 3: ("passed", None)}


def test_an_actor_that_was_ended_by_others_is_replaced(make: Make, tmp_path: Path) -> None:
    import ray

    executor, log, found = make(sleep_s=2.0, log=str(tmp_path / "log")), tmp_path / "log", Answers()
    submit(executor, *range(4))
    worker, victim = running(executor, log, found)
    ray.kill(worker.actor)
    found.all_of(executor, 4)
    assert starts(log)[victim] == 2
    assert found[victim][0].attempt == 1
    assert all(outcome.state == "passed" for _, outcome in found.values())
    assert sum(starts(log).values()) == 5, "what had not begun was not given out twice"


def test_a_stopped_worker_is_ended_at_the_time_limit(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_GRACE_S", 0.5)
    log, found = tmp_path / "log", Answers()
    executor = make(sleep_s=1.5, limit_s=2.0, log=str(log))
    pids = {worker.number: pid_of(worker) for worker in ready(executor, 2)}
    submit(executor, *range(4))
    worker, victim = running(executor, log, found)
    begun = time.monotonic()
    os.kill(pids[worker.number], signal.SIGSTOP)
    found.all_of(executor, 4)
    assert time.monotonic() - begun > 2
    assert (found[victim][0].attempt, found[victim][1].state) == (1, "passed")
    end = time.monotonic() + 20
    while Path(f"/proc/{pids[worker.number]}/cmdline").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not Path(f"/proc/{pids[worker.number]}/cmdline").exists(), "the stopped process is gone"


def test_a_job_that_always_hangs_is_told_as_failed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_GRACE_S", 1.0)
    executor = make(tricks={"2": "hang"}, limit_s=0.2)
    submit(executor, 2, 3, 4)
    found = Answers().all_of(executor, 3)
    assert [found[n][1].state for n in (2, 3, 4)] == ["failed", "passed", "passed"]
    assert found[2][1].reason == "the time limit of 0.2 s was exceeded and the worker was ended"
    assert found[2][0].attempt == 1


def test_nodes_may_join_late_and_die(make: Make, ray_cluster: Any, tmp_path: Path) -> None:
    log, found = tmp_path / "log", Answers()
    executor = make(workers=AS_MANY_AS_FIT, sleep_s=1.0, log=str(log))
    submit(executor, *range(4))
    running(executor, log, found)
    before = executor.capacity
    late = ray_cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    fillers, end = itertools.count(100), time.monotonic() + 60  # with nothing to wait for, nothing is taken in
    while late.node_id not in {worker.ready.node for worker in executor._workers.values() if worker.ready is not None}:
        assert time.monotonic() < end, "no worker on the node"
        if not executor._n:
            submit(executor, next(fillers))
        found.take(executor, 0.1)
    submit(executor, *range(4, 16))
    _, victim = running(executor, log, found, node=late.node_id)
    assert executor.capacity == 2 * before
    kill_node(late)
    found.all_of(executor, 16 + next(fillers) - 100)
    ray_cluster.remove_node(late)
    assert starts(log)[victim] == 2, "it was begun on the node that was killed, and again elsewhere"
    assert found[victim][0].attempt == 1
    assert all(outcome.state == "passed" for _, outcome in found.values())
    assert sum(job.attempt for job, _ in found.values()) <= 2, "one for each worker of the node"
    assert all(starts(log)[g] <= job.attempt + 1 and job.seed == g for g, (job, _) in found.items())


def bare(**state: Any) -> tuple[RayExecutor, list[tuple[Worker, list[Item]]]]:
    """An executor that is nothing but its ``state``, and what it sends."""
    executor, sent = object.__new__(RayExecutor), []
    vars(executor).update({"_waiting": deque(), "_retries": deque(), "_alone": deque(), "_quiet": None, **state})

    def send(worker: Worker, items: list[Item]) -> None:
        worker.calls.append(Call(0, items, Future(), 0.0, None))
        executor._hungry.pop(worker.number, None)
        sent.append((worker, items))

    vars(executor)["_send"] = send
    return executor, sent


def workers_on(*nodes: str) -> dict[int, Worker]:
    """Ready ones, by number."""
    workers = {worker.number: worker for worker in (Worker(None, 0.0) for _ in nodes)}
    for worker, node in zip(workers.values(), nodes, strict=True):
        worker.ready = Ready({}, node, "")
    return workers


@pytest.mark.parametrize("there", ["other idle", "other busy", "other busy for long", "no other"])
def test_a_retry_is_not_sent_where_its_node_was_lost(there: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that dies takes its workers one after the other; the second must not take the second try with it."""
    workers = workers_on("a", "a", *(["b"] if there != "no other" else []))
    lost, beside, *other = workers.values()
    hungry = dict.fromkeys(workers)
    if there.startswith("other busy"):
        other[0].calls.append(Call(1, [], Future(), 0.0, None))
    executor, sent = bare(_workers=workers, _hungry=hungry, _estimates=Estimates())
    vars(executor)["_fleet"] = SimpleNamespace(end=lambda worker: workers.pop(worker.number))
    lost.calls.append(Call(0, [Item(Job(1, "quality", {"n": 1}, seed=1))], Future(), 0.0, None))
    executor._waiting.append(Item(Job(2, "quality", {"n": 2}, seed=2)))
    assert executor._lose(lost, "the worker died") == []
    hungry.pop(lost.number, None)
    if there == "other busy for long":
        monkeypatch.setattr(workers_module, "_DYING_S", -1.0)
    executor._assign()
    where = {items[0].job.candidate: worker for worker, items in sent}
    if there == "other idle":
        assert where == {1: other[0], 2: beside}
    elif there == "other busy":
        assert where == {2: beside}, "it waits for the other node, and nobody waits for it"
    else:
        assert where[1] is beside


def test_a_job_that_is_too_big_runs_once_more_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = make(tricks={"2": "oom", "3": "oom-once"}, sleep_s=0.05)
    alone: list[int] = []
    send = RayExecutor._send

    def spy(self: RayExecutor, worker: Worker, items: list[Item]) -> None:
        calls = [call for other in self._workers.values() for call in other.calls]
        assert not any(call.items[0].alone for call in calls), "nobody else gets a job meanwhile"
        if items[0].alone:
            assert calls == [], "everybody else is idle"
            alone.append(items[0].job.candidate)
        send(self, worker, items)

    monkeypatch.setattr(RayExecutor, "_send", spy)
    submit(executor, *range(1, 15))
    found = Answers().all_of(executor, 14)
    assert sorted(alone) == [2, 3]
    assert {g: o.state for g, (_, o) in found.items() if o.state != "passed"} == {2: "rejected"}
    assert found[2][1].reason == "too big"
    assert (found[2][0].attempt, found[3][0].attempt) == (1, 1)


def test_nobody_is_alone_beside_a_worker_that_has_calls_to_answer() -> None:
    workers = workers_on("node", "node")
    spent, other = workers.values()
    spent.spent = True
    spent.calls.append(Call(0, [], Future(), 0.0, None))
    alone = deque([Item(Job(1, "quality", {"n": 1}, seed=1), alone=True)])
    fleet = SimpleNamespace(rest=lambda _: None)
    executor, sent = bare(_workers=workers, _fleet=fleet, _alarms=[], _alone=alone, _hungry={})
    executor._serve_alone()
    assert sent == []
    spent.calls.clear()
    executor._serve_alone()
    assert [worker for worker, _ in sent] == [other]


def test_cheap_jobs_are_sent_in_batches(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    send = RayExecutor._send
    monkeypatch.setattr(RayExecutor, "_send", lambda *args: sizes.append(len(args[2])) or send(*args))
    add = Estimates.add
    monkeypatch.setattr(Estimates, "add", lambda self, stage, _: add(self, stage, 1e-4))
    executor = make()
    assert executor.capacity == 4, "two per worker, as long as nothing is known"
    submit(executor, *range(20))
    found = Answers().all_of(executor, 20)
    assert executor.capacity > 100
    sizes.clear()
    submit(executor, *range(20, 520))
    found.all_of(executor, 520)
    assert sum(sizes) == 500
    assert len(sizes) < 100


def test_what_takes_long_waits_here_and_not_at_one_worker(make: Make, tmp_path: Path) -> None:
    log, found = tmp_path / "log", Answers()
    executor = make(sleep_s=1.2, log=str(log))
    submit(executor, *range(2))
    found.all_of(executor, 2)
    submit(executor, *range(2, 6))
    running(executor, log, found)
    assert all(len(worker.calls) <= 1 for worker in executor._workers.values()), "given out when it is nearly done"
    found.all_of(executor, 6)


def test_workers_that_cannot_start_end_the_run_with_a_sentence(make: Make) -> None:
    executor = make(workers=1, broken="dies")
    submit(executor, 1)
    with pytest.raises(RunError, match=r"3 in a row died before they were ready \(.*\); use fewer workers"):
        executor.results(60)


def test_more_than_the_cluster_has_is_refused(make: Make) -> None:
    with pytest.raises(BadInputError, match="GPUs must be in the cluster, got a need for 1 where 0 are"):
        make(workers=2, resources=Resources(gpus_per_worker=0.5))
    with pytest.raises(BadInputError, match="a worker must fit on a node, got 99 CPUs"):
        make(workers=1, resources=Resources(cpus_per_worker=99.0))


def test_closing_leaves_the_cluster_and_no_worker(make: Make) -> None:
    executor = make(tricks={"1": "hang"})
    pids = [pid_of(worker) for worker in ready(executor, 2)]
    submit(executor, 1, 2)
    executor.results(20)
    executor.close(now=True)
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids)
    submit(make(), 5)
