"""Search for faster schedules of a network's kernels, one measured trial after another.

MetaSchedule proposes schedules and learns from their times; this loop decides which kernel is
next, builds a batch of its candidates, runs them one by one, and writes each result down at
once. A kernel gets trials in proportion to its share of the network's time: how often it is
called times how long it takes now.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import tvm
from tvm.s_tir import meta_schedule as ms

from hios.entry_store import EntryStore
from hios.errors import DeviceUnavailable, InvalidOption
from relay_passes.tuning.choose import judge
from relay_passes.tuning.context import tune_context
from relay_passes.tuning.database import TuningDatabase, Verdict
from relay_passes.tuning.tasks import TuningTask

__all__ = ["KernelReport", "Tracker", "TuneOptions", "TuneReport", "tune"]

_FAILED_S = 1e10
_TRACKER_TIMEOUT_S = 10.0
_SESSION_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Tracker:
    """TVM's RPC tracker, which lends a machine to measure on."""

    host: str
    port: int
    key: str


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """How to search.

    Attributes
    ----------
    trials
        Trials of the whole network, those that the database holds already included.
    budget_s
        Stop after this many seconds; None for no limit.
    batch
        Candidates that are built together.
    population
        Schedules that the search keeps before it proposes a batch: more cost more time for
        each batch, and may propose better ones.
    seed
        Of the search.
    tracker
        Measure on a machine that this tracker lends; None: here.
    """

    trials: int
    budget_s: float | None = None
    batch: int = 16
    population: int = 128
    seed: int = 0
    tracker: Tracker | None = None

    def validate(self) -> None:
        """Check the numbers.

        Raises
        ------
        InvalidOption
            When one is out of range.
        """
        if self.population < 4:
            raise InvalidOption(f"a population of {self.population}; need at least 4")
        if self.trials < 1 or self.batch < 1:
            raise InvalidOption(f"{self.trials} trials in batches of {self.batch}: need at least 1")
        if self.budget_s is not None and self.budget_s <= 0.0:
            raise InvalidOption(f"a budget of {self.budget_s} s; need more than 0")


@dataclass(frozen=True, slots=True)
class KernelReport:
    """What became of one kernel.

    Attributes
    ----------
    name, count
        As in `TuningTask`.
    trials
        In the database, now.
    verdict
        Tuned against rule, or None when there is no trial or it cannot be measured here.
    """

    name: str
    count: int
    trials: int
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What a search brought.

    Attributes
    ----------
    trials
        Run now.
    failed
        Of them, those that could not be built or run.
    seconds
        All of it took.
    stopped
        ``trials``, ``budget`` or ``exhausted``: why it ended.
    kernels
        One by one.
    """

    trials: int
    failed: int
    seconds: float
    stopped: str
    kernels: tuple[KernelReport, ...]


def tune(
    tasks: Sequence[TuningTask],
    database: TuningDatabase,
    options: TuneOptions,
    store: EntryStore | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> TuneReport:
    """Search, and compare what was found with the kernels of our rules.

    Parameters
    ----------
    tasks : sequence of TuningTask
        The kernels of a network.
    database : TuningDatabase
        Where trials are read from and written to; open for creating.
    options : TuneOptions
        How much and where.
    store : EntryStore, optional
        Where object files are kept.
    progress : callable, optional
        Told what is being done, and the fraction done.

    Raises
    ------
    DeviceUnavailable
        When the tracker cannot be reached or has no machine under its key, or that machine
        answers no more.
    InvalidOption
        When an option is out of range.
    """
    options.validate()
    report = progress or (lambda _phase, _done: None)
    search = _Search(tasks, database, options, report)
    started = time.monotonic()
    stopped = search.run(started)
    kernels = []
    for index, task in enumerate(tasks):
        report(f"compare {task.name}", 0.9 + 0.1 * index / len(tasks))
        tuned = database.best(task.workload)
        verdict = None
        if tuned is not None and options.tracker is None:
            verdict = judge(database, task.rule, tuned, store)
        elif tuned is not None:
            verdict = search.judge_remotely(task, tuned)
        kernels.append(KernelReport(task.name, task.count, search.trials[task.key], verdict))
    report("done", 1.0)
    seconds = time.monotonic() - started
    return TuneReport(search.done, search.failed, seconds, stopped, tuple(kernels))


class _Search:
    def __init__(
        self,
        tasks: Sequence[TuningTask],
        database: TuningDatabase,
        options: TuneOptions,
        report: Callable[[str, float], None],
    ) -> None:
        self.tasks = list(tasks)
        self.database = database
        self.options = options
        self.report = report
        self.done = 0
        self.failed = 0
        self.trials = {task.key: database.trials(task.workload) for task in tasks}
        self.before = sum(self.trials.values())
        self.best_us: dict[str, float] = {}
        self.contexts: dict[str, Any] = {}
        self.cores = cores = len(os.sched_getaffinity(0))
        self.target = _with_cores(database.target, cores)
        self.runner = _runner(options.tracker)
        self.model = ms.cost_model.XGBModel(num_tuning_cores=cores)

    def run(self, started: float) -> str:
        """Run trials until there are enough; return why it ended."""
        left = [task for task in self.tasks if self._open(task)]
        if self._is_over(started):
            return self._is_over(started)
        self.report("kernels as they are", self._fraction(started))
        for task, seconds in zip(left, self._measure([task.rule for task in left]), strict=True):
            self.best_us[task.key] = _FAILED_S if seconds is None else seconds * 1e6
        while left:
            task = max(left, key=self._urgency)
            if self._is_over(started):
                break
            if not self._batch(task, started):
                left.remove(task)
        return self._is_over(started) or "exhausted"

    def _urgency(self, task: TuningTask) -> float:
        best = self.best_us[task.key]
        share = task.count * (best if best < _FAILED_S else 1.0)
        return share / (self.trials[task.key] + 1)

    def _is_over(self, started: float) -> str:
        if self.before + self.done >= self.options.trials:
            return "trials"
        budget = self.options.budget_s
        return "budget" if budget is not None and time.monotonic() - started > budget else ""

    def _fraction(self, started: float) -> float:
        wanted = max(1, self.options.trials - self.before)
        parts = [self.done / wanted]
        if self.options.budget_s is not None:
            parts.append((time.monotonic() - started) / self.options.budget_s)
        return 0.9 * min(1.0, max(parts))

    def _open(self, task: TuningTask) -> bool:
        """Prepare the search of a kernel; False when MetaSchedule knows no way to schedule it."""
        population = self.options.population
        strategy = ms.search_strategy.EvolutionarySearch(
            population_size=population, init_min_unmeasured=min(50, population // 2)
        )
        context = tune_context(
            task.workload, self.target, strategy, task.name, self.options.seed, self.cores
        )
        spaces = context.generate_design_space()
        if not spaces:
            return False
        context.pre_tuning(
            self.options.trials, self.options.batch, spaces, self.database.records, self.model
        )
        self.contexts[task.key] = context
        return True

    def _batch(self, task: TuningTask, started: float) -> bool:
        """Run one batch of trials of a kernel; False when nothing is left to try."""
        context = self.contexts[task.key]
        self.report(f"{task.name}, propose", self._fraction(started))
        candidates = list(context.generate_measure_candidates() or ())
        candidates = candidates[: self.options.trials - self.before - self.done]
        if not candidates:
            return False
        self.report(f"{task.name}, compile {len(candidates)}", self._fraction(started))
        built = self._build([candidate.sch.mod for candidate in candidates])
        entry = self.database.records.commit_workload(task.workload)
        results = []
        for candidate, artifact in zip(candidates, built, strict=True):
            if self._is_over(started):
                break
            best = self.best_us[task.key]
            told = f", best {best:.1f} µs" if best < _FAILED_S else ""
            self.report(f"{task.name}{told}", self._fraction(started))
            result = self._run(artifact, candidate.args_info)
            self.done += 1
            self.trials[task.key] += 1
            if result.run_secs is None:
                self.failed += 1
            else:
                # Written before the next trial starts: an interruption costs one at most.
                seconds = [float(second) for second in result.run_secs]
                record = ms.database.TuningRecord(
                    candidate.sch.trace, entry, seconds, self.target, candidate.args_info
                )
                self.database.records.commit_tuning_record(record)
                self.best_us[task.key] = min(best, sum(seconds) / len(seconds) * 1e6)
            results.append(result)
        _remove(built)
        measured = candidates[: len(results)]
        if measured:
            context.notify_runner_results(measured, results)
            self.model.update(context, measured, results)
        return True

    def judge_remotely(self, task: TuningTask, tuned: Any) -> Verdict:
        """Compare on the lent machine, in turns; only times are looked at."""
        pairs = []
        for _ in range(3):
            rule_s, tuned_s = self._measure([task.rule, tuned])
            if rule_s is None or tuned_s is None:
                break
            pairs.append((rule_s * 1e6, tuned_s * 1e6))
        from relay_passes.tuning.compare import MARGIN
        from relay_passes.tuning.workload import func_key

        if not pairs:
            verdict = Verdict({}, {}, None, False)
        else:
            rule_us, tuned_us = (
                sorted(times)[len(pairs) // 2] for times in zip(*pairs, strict=True)
            )
            is_faster = all(b < MARGIN * a for a, b in pairs)
            verdict = Verdict({"remote": rule_us}, {"remote": tuned_us}, None, is_faster)
        key = f"{func_key(task.rule)}-{func_key(tuned)}"
        self.database.store_verdict(key, verdict)
        return verdict

    def _measure(self, funcs: Sequence[Any]) -> list[float | None]:
        """Return the mean time of scheduled kernels in seconds, None for what does not run."""
        mods = [tvm.IRModule({"main": func.with_attr("global_symbol", "main")}) for func in funcs]
        built = self._build(mods)
        times: list[float | None] = []
        for func, artifact in zip(funcs, built, strict=True):
            result = self._run(artifact, ms.arg_info.ArgInfo.from_prim_func(func))
            seconds = result.run_secs
            mean = None if seconds is None else sum(float(s) for s in seconds) / len(seconds)
            times.append(mean)
        _remove(built)
        return times

    def _build(self, mods: Sequence[Any]) -> list[Any]:
        # In threads of this process: MetaSchedule's own builder starts processes for each batch,
        # which import TVM and its tensor intrinsics for many seconds before they compile.
        with ThreadPoolExecutor(self.cores, "hios-tune") as pool:
            return list(pool.map(self._build_one, mods))

    def _build_one(self, mod: Any) -> Any:
        folder = Path(tempfile.mkdtemp(prefix="hios-trial-"))
        path = folder / "kernel.so"
        try:
            tvm.compile(mod, target=self.target).export_library(str(path))
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            return ms.builder.BuilderResult(None, str(error).strip().splitlines()[-1])
        return ms.builder.BuilderResult(str(path), None)

    def _run(self, built: Any, args_info: Any) -> Any:
        if built.artifact_path is None:
            return ms.runner.RunnerResult(None, built.error_msg or "not built")
        device = "cuda" if str(self.target.kind.name) == "cuda" else "cpu"
        request = ms.runner.RunnerInput(built.artifact_path, device, args_info)
        running = self.runner.run([request])[0]
        # TVM waits for ever for a machine that is gone.
        until = time.monotonic() + 2.0 * _SESSION_TIMEOUT_S
        while not running.done():
            if time.monotonic() > until:
                _end_workers()
                raise DeviceUnavailable(
                    f"the machine that the tracker lends did not answer for "
                    f"{2.0 * _SESSION_TIMEOUT_S:.0f} s; look at it, and start again with the same "
                    "database to go on"
                )
            time.sleep(0.005)
        return running.result()


def _with_cores(target: tvm.target.Target, cores: int) -> tvm.target.Target:
    """Return the target with its number of cores, which MetaSchedule's rules ask for."""
    if str(target.kind.name) != "llvm":
        return target
    return tvm.target.Target({**json.loads(str(target)), "num-cores": cores})


def _runner(tracker: Tracker | None) -> Any:
    timing = ms.runner.EvaluatorConfig(number=1, repeat=3, min_repeat_ms=30)
    if tracker is None:
        return ms.runner.LocalRunner(timeout_sec=30, evaluator_config=timing)
    place = ms.runner.RPCConfig(
        tracker.host, tracker.port, tracker.key, session_timeout_sec=_SESSION_TIMEOUT_S
    )
    where = f"{tracker.host}:{tracker.port}"
    try:
        # TVM's own client tries for a long time, in a thread whose failure nobody can catch.
        socket.create_connection((tracker.host, tracker.port), _TRACKER_TIMEOUT_S).close()
        servers = place.count_num_servers(allow_missing=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[0]
        raise DeviceUnavailable(
            f"no RPC tracker answers at {where} ({reason}); start one with `python -m "
            f"tvm.exec.rpc_tracker --port {tracker.port} --port-end {tracker.port + 1}`"
        ) from None
    if servers == 0:
        raise DeviceUnavailable(
            f"the tracker at {where} has no machine under key {tracker.key!r}; start one with "
            f"`python -m tvm.exec.rpc_server --tracker {where} --key {tracker.key}`"
        )
    return ms.runner.RPCRunner(place, timing, max_workers=1)


def _end_workers() -> None:
    """End the processes that TVM runs trials from, or this one would wait for them at its end."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "tvm.exec.popen_worker" in child.cmdline():
                child.kill()


def _remove(built: Sequence[Any]) -> None:
    for result in built:
        if result.artifact_path is not None:
            shutil.rmtree(Path(str(result.artifact_path)).parent, ignore_errors=True)
