"""Real processes: what is done stays done, what fails fails alone; whatever is killed, the numbers stay the same."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from fly64_nb.engine.cluster import Run, Runner, run_task
from fly64_nb.engine.fork import Request, WarmParent
from fly64_nb.engine.graph import Limits, absence, plan_jobs, read_run, running_notes
from fly64_nb.engine.inputs import writers_of
from fly64_nb.engine.record import read_record, why_stale
from graph import build, go, numbers

HERE = Path(__file__).parent
ROUNDS = int(os.environ.get("FLY64_FAULT_ROUNDS", "2"))  # kills of each kind; more of them find rarer moments


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> dict[str, str]:
    """What the graph writes when nothing happens to it."""
    root = tmp_path_factory.mktemp("undisturbed")
    assert Counter(r.status for r in go(root, workers=2).values()) == {"done": 9}
    return numbers(root)


def started(root: Path, **options) -> subprocess.Popen:
    """The graph in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, HERE / "graph.py", root, json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=HERE,
        start_new_session=True,
        # a slow machine: Dask would give up a killed worker before it has started again
        env={**os.environ, "DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT": "0.2"},
    )


def wait_for(condition, seconds: float = 60):
    """The first true value of a condition."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"nothing came within {seconds} s")


def descendants(process: subprocess.Popen) -> list[psutil.Process]:
    """All descendants of a process."""
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def assert_gone(processes: list[psutil.Process]) -> None:
    """None of them is left but as a zombie: in a container nobody may be there who asks how an orphan ended."""
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not [p for p in alive if _status(p) != psutil.STATUS_ZOMBIE], [(p.pid, _command(p)) for p in alive]


# what is done stays done


def test_run_again_does_nothing_and_only_what_depends_on_a_change_is_made_again(tmp_path, undisturbed):
    go(tmp_path, workers=2)
    assert Counter(r.status for r in go(tmp_path).values()) == {"up to date": 9}
    for damage, again, why in (
        (lambda: (tmp_path / "b1.txt").write_text("tampered"), {"b1"}, "b1.txt was changed"),
        (lambda: (tmp_path / "a0.txt").unlink(), {"a0"}, "a0.txt is missing"),
        (lambda: (tmp_path / "notebooks/phase_c/c.ipynb").unlink(), {"c"}, "executed notebook is missing"),
        (lambda: (tmp_path / "notebooks/phase_d/d.json").write_text("{}"), {"d"}, "record was changed"),
        (
            lambda: (tmp_path / "base.txt").write_text("another"),
            {"a0", "a1", "a2", "a3", "b0", "b1", "b2", "c", "d"},
            "base.txt changed",
        ),
    ):
        damage()
        results = go(tmp_path, workers=2)
        assert {name for name, r in results.items() if r.status == "done"} == again, why
        assert any(why in r.detail for r in results.values()), [r.detail for r in results.values()]
        if why != "base.txt changed":
            assert numbers(tmp_path) == undisturbed  # what was made again is what it was, so what reads it need not be


def test_a_change_of_a_setting_or_of_the_code_is_named(tmp_path):
    go(tmp_path, workers=2)
    plan = plan_jobs(build(tmp_path, seconds=0.01))
    assert plan.reasons[0] == "parameter settings.seconds changed from 0.0 to 0.01" and len(plan.reasons) == 9
    text = (tmp_path / "work.ipynb").read_text()
    for harmless in ("import  ctypes", "# what is needed\\nimport ctypes", "\\n\\nimport ctypes"):
        (tmp_path / "work.ipynb").write_text(text.replace("import ctypes", harmless))
        assert not plan_jobs(build(tmp_path)).reasons, harmless
    (tmp_path / "work.ipynb").write_text(text.replace("an example is no part", "an example is a part"))
    assert not plan_jobs(build(tmp_path)).reasons
    (tmp_path / "work.ipynb").write_text(text.replace("import ctypes", "import copy, ctypes"))
    assert plan_jobs(build(tmp_path)).reasons[0] == "work.ipynb changed"


def test_a_job_leaves_its_notebook_log_and_record(tmp_path):
    job = build(tmp_path)[4]
    go(tmp_path, workers=1)
    log = job.log_path.read_text()
    assert (
        log.startswith("condition: phase_b/b0\ncommand: python -m papermill work.ipynb ") and "return code: 0\n" in log
    )
    assert str(tmp_path) not in log and sys.executable not in log
    out, err = log.split("=== STDOUT ===\n")[1].split("\n=== STDERR ===\n")
    assert "b0 made" in out and err == "100%\n\n"  # a progress bar is a line
    record = read_record(job)
    assert set(record["input_digests"]) == {"a0.txt", "a1.txt"} and record["attempts"] == 1 and record["max_rss_gb"] > 0
    executed = nbformat.read(job.executed_notebook, as_version=4)
    assert executed.cells[-1].outputs[0].text == "100%\n" and "b0 made" in executed.cells[-1].outputs[1].text
    assert executed.metadata.papermill.parameters.settings == {"seconds": 0.0}
    assert not any("an example" in cell.source for cell in executed.cells)
    assert not running_notes(tmp_path) and read_run(tmp_path) is None


# what fails fails alone


def test_a_failing_job_is_tried_again_recorded_and_takes_only_its_own_with_it(tmp_path):
    results = go(tmp_path, modes={"b0": "fail", "a3": "fail once"}, workers=2)
    assert (results["b0"].status, results["b0"].returncode) == ("failed", 1) and "told to fail" in results["b0"].detail
    assert (tmp_path / "b0.tried").read_text() == "xx" and (tmp_path / "a3.tried").read_text() == "xx"
    assert results["a3"].status == "done" and read_record(results["a3"].job)["attempts"] == 2
    assert results["c"].status == "skipped" and "phase_b/b0 failed: AssertionError: told to fail" in results["c"].detail
    assert Counter(r.status for r in results.values()) == {"done": 7, "failed": 1, "skipped": 1}
    evidence = nbformat.read(results["b0"].job.executed_notebook, 4).cells[-1].outputs
    assert "told to fail" in str(evidence) and "failed before" in why_stale(results["b0"].job)
    mended = go(tmp_path, workers=2)
    again = {name for name, result in mended.items() if result.status == "done"}
    assert again - {"b2"} == {"a3", "b0", "c"}  # b2 reads what a3 made, the same at both attempts


def test_a_job_that_was_skipped_says_why_and_comes_back_when_the_failure_is_mended(tmp_path, undisturbed):
    jobs = {job.name: job for job in build(tmp_path)}
    why = lambda name: absence(jobs[name], tmp_path, writers_of(list(jobs.values())))
    assert why("c") == "not made yet; `fly64 run` makes it"
    go(tmp_path, modes={"b0": "fail"}, limits=Limits(retries=0), workers=2)
    assert why("a0") is None and why("b0").startswith(
        "failed with return code 1: AssertionError: told to fail (log logs/"
    )
    assert why("c") == "skipped: phase_b/b0 failed: AssertionError: told to fail"
    go(tmp_path, workers=2)
    assert why("c") is None
    assert go(tmp_path, modes={"b0": "fail"}, limits=Limits(retries=0), workers=2)["c"].status == "skipped"
    mended = go(tmp_path, workers=2)  # b0 comes out as it was, so that c has nothing to do
    assert {name: r.status for name, r in mended.items() if r.status != "up to date"} == {"b0": "done"}
    assert numbers(tmp_path) == undisturbed


def test_a_job_that_finds_nothing_to_do_is_left_out_with_what_needs_it_until_something_changes(tmp_path):
    for _ in range(2):
        results = go(tmp_path, modes={"b0": "leave out"}, workers=2)
        reasons = {name: result.detail for name, result in results.items() if result.status == "left out"}
        assert reasons == {"b0": "too few positions: 9 of 140", "c": "too few positions: 9 of 140"}
    assert Counter(r.status for r in results.values()) == {"up to date": 7, "left out": 2}
    assert (tmp_path / "b0.tried").read_text() == "x" and read_record(results["b0"].job)["attempts"] == 1
    assert {name for name, r in go(tmp_path, workers=2).items() if r.status == "done"} == {"b0", "c"}


@pytest.mark.parametrize(
    "mode, limits, word",
    [
        ("segfault", Limits(retries=0), "signal 11"),
        ("memory", Limits(memory_gb=0.4, retries=0), "over its memory limit"),
        ("sleep", Limits(seconds=1.0, retries=1), "over its time limit of 1 s"),
    ],
)
def test_a_job_that_crashes_or_takes_too_much_takes_only_itself(tmp_path, undisturbed, mode, limits, word):
    results = go(tmp_path, modes={"a0": mode}, limits=limits, workers=1)
    failed = results["a0"]
    assert failed.status == "failed" and word in failed.detail and word in failed.job.log_path.read_text()
    assert {n for n, r in results.items() if r.status == "skipped"} == {"b0", "c"}
    assert Counter(r.status for r in go(tmp_path, workers=1).values())["done"] == 3
    assert numbers(tmp_path) == undisturbed


# a warm parent

SPOIL = {
    "torch": """import numpy as np, torch
torch.manual_seed(0), torch.set_default_device("meta")
torch.set_default_dtype(torch.float64), torch.set_num_threads(2)""",
    "tensorflow": """import keras, numpy as np, tensorflow as tf
keras.utils.set_random_seed(0), keras.config.set_floatx("float64")
tf.config.experimental.enable_op_determinism(), tf.Variable(1.0)""",
}
SPOIL_ALL = """
import os, matplotlib.pyplot as plt
np.random.seed(0), plt.figure(), os.chdir("/")"""
LOOK = {
    "torch": """import torch
found = [str(torch.get_default_device()), str(torch.get_default_dtype()), torch.get_num_threads()]""",
    "tensorflow": """import keras
found = [keras.config.floatx(), keras.tree.flatten(keras.Sequential([]).weights)]""",
}
LOOK_ALL = """
import os, matplotlib.pyplot as plt, numpy as np
parent_threads = len(os.listdir(f"/proc/{os.getppid()}/task"))
seeded = bool(np.random.rand() == 0.5488135039273248)
print([*found, parent_threads, os.getcwd(), plt.get_fignums(), seeded])"""
CLEAN = {"torch": "'cpu', 'torch.float32', 1", "tensorflow": "'float32', []"}
IMPORTS = {"torch": ("torch", "torchmetrics"), "tensorflow": ("keras", "tensorflow")}


@pytest.mark.parametrize("family", ["torch", "tensorflow"])
def test_a_job_finds_nothing_of_the_one_before_it_and_its_parent_has_one_thread(tmp_path, family):
    """Forking is safe as long as the parent has one thread, and it runs nothing."""
    parent, printed = WarmParent(), []
    look, spoil = LOOK[family] + LOOK_ALL, SPOIL[family] + SPOIL_ALL
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python"}}
    for number, code in enumerate((look, spoil, look)):
        path = tmp_path / f"{number}.ipynb"
        nbformat.write(new_notebook(cells=[new_code_cell(code)], metadata=kernel), path)
        files = f"{path}.1", f"{path}.2"
        request = Request(str(path), f"{path}.out.ipynb", str(tmp_path), {}, *files, imports=IMPORTS[family])
        assert parent.run(request).returncode == 0, Path(files[1]).read_text()
        printed.append(Path(files[0]).read_text())
    parent.stop()
    assert printed[0] == printed[2] == f"[{CLEAN[family]}, 1, '{tmp_path}', [], False]\n"


def test_families_share_no_parent(tmp_path):
    """PyTorch and TensorFlow abort in one process; a job of neither takes whatever parent there is."""
    jobs = build(tmp_path)
    families = {"a0": "torch", "a1": "tensorflow", "a2": "torch", "a3": "tensorflow"}
    jobs = [replace(job, family=families.get(job.name, "")) for job in jobs]
    with Runner(tmp_path, "test", workers=1) as runner:
        runner.run(plan_jobs(jobs))
    parents = {job.name: job.log_path.read_text().split("parent ")[1].split()[0] for job in jobs}
    assert parents["a0"] == parents["a2"] != parents["a1"] == parents["a3"]
    assert set(parents.values()) == {parents["a0"], parents["a1"]}


# one at a time


def test_a_second_run_is_refused_and_names_the_first(tmp_path):
    first = started(tmp_path, seconds=2.0, workers=1)
    wait_for(lambda: running_notes(tmp_path))
    with pytest.raises(RuntimeError, match=rf"in use by `graph.py` \(process {first.pid} on "):
        go(tmp_path)
    first.kill()
    first.communicate()


# whatever is killed


@pytest.mark.parametrize("victim", ["the run", "a worker", "the parent that forks", "a job", "everything"])
def test_whatever_is_killed_the_numbers_come_out_the_same(tmp_path, undisturbed, victim):
    rng = random.Random(victim)
    for _ in range(ROUNDS):
        run = started(tmp_path, seconds=0.4, workers=2)
        wait_for(lambda run=run: running_notes(tmp_path) or run.poll() is not None)
        time.sleep(rng.random())
        everyone = descendants(run)
        parents = [p for p in everyone if "serve()" in " ".join(_command(p))]
        jobs = [p for parent in parents for p in everyone if _parent(p) == parent.pid]
        workers = [p for p in everyone if any(_parent(parent) == p.pid for parent in parents)]
        chosen = {
            "the run": [run],
            "a worker": workers[:1],
            "the parent that forks": parents[:1],
            "a job": jobs[:1],
            "everything": [run, *everyone],
        }[victim]
        for process in chosen:
            try:
                process.kill()
            except (psutil.NoSuchProcess, ProcessLookupError):
                pass
        printed, _ = run.communicate(timeout=120)
        # a lost worker or job is made good in the same run
        assert run.returncode == (-9 if victim in ("the run", "everything") else 0), printed
        assert_gone(everyone)
    assert set(r.status for r in go(tmp_path, seconds=0.4, workers=2).values()) <= {"done", "up to date"}
    assert numbers(tmp_path) == undisturbed
    assert not list(tmp_path.rglob(".unfinished-*")) and not list(tmp_path.rglob("*.unfinished.ipynb"))


def _status(process: psutil.Process) -> str:
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_ZOMBIE


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _parent(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.Error:
        return 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_stop_ends_everything_soon(tmp_path, number):
    """Through the command line, since that is where Ctrl-C is turned into words and an exit status."""
    run = subprocess.Popen(
        [Path(sys.executable).with_name("fly64"), "run", tmp_path / "s", "--profile", "tiny", "--doses", "1e4"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(lambda: any("phase_e" in str(p) or "phase_f" in str(p) for p in running_notes(tmp_path / "s")), 120)
    everyone = descendants(run)
    kill = os.killpg if number == signal.SIGINT else os.kill  # a terminal tells the whole group
    kill(run.pid, number)
    began = time.monotonic()
    printed, _ = run.communicate(timeout=30)
    assert run.returncode == 130 and "run the same command again to continue" in printed, printed
    assert "Traceback" not in printed, printed
    assert time.monotonic() - began < 15
    assert_gone(everyone)
    manifest = json.loads((tmp_path / "s" / "phase_c" / "manifest.json").read_text())
    assert manifest["n_success"] == 1 and read_run(tmp_path / "s") is None  # what was done before the stop is told


# elsewhere


@pytest.fixture
def scheduler(tmp_path):
    """A Dask scheduler and two workers of its own, on TCP of this machine; started as a user would start them."""
    file = tmp_path / "scheduler.json"
    program = Path(sys.executable).with_name("dask")
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=HERE)
    where = ["--host", "127.0.0.1", "--port", "0", "--scheduler-file", file]
    processes = [subprocess.Popen([program, "scheduler", "--no-dashboard", *where], **quiet)]
    wait_for(file.is_file)
    options = "--nthreads 1 --no-nanny --no-dashboard --resources threads=1,memory_gb=4".split()
    for _ in range(2):
        processes.append(subprocess.Popen([program, "worker", "--scheduler-file", file, *options], **quiet))
    yield file, processes
    for process in processes:
        process.kill()
        process.wait()


def test_a_lost_worker_of_a_real_cluster_takes_nothing_with_it(tmp_path, undisturbed, scheduler):
    file, (_, first, second) = scheduler
    run = started(tmp_path / "s", seconds=1.0, scheduler=str(file))
    wait_for(lambda: len(running_notes(tmp_path / "s")) == 2 or run.poll() is not None)
    time.sleep(0.3)
    orphans = descendants(first)
    first.kill()  # in the middle of its job
    printed, _ = run.communicate(timeout=120)
    assert run.returncode == 0, printed
    assert_gone(orphans)
    assert numbers(tmp_path / "s") == undisturbed
    hosts = {read_record(job)["worker"] for job in build(tmp_path / "s")}
    assert all(h.startswith("tcp://127.0.0.1:") for h in hosts) and len(hosts) <= 2
    go(
        tmp_path / "s", seconds=0.01, scheduler=json.loads(file.read_text())["address"]
    )  # and by address, with the one that is left
    second.kill()


def test_a_scheduler_that_goes_away_fails_no_job(tmp_path, undisturbed, scheduler):
    file, (server, *_) = scheduler
    run = started(tmp_path / "s", seconds=1.0, scheduler=str(file))
    wait_for(lambda: running_notes(tmp_path / "s") or run.poll() is not None)
    server.kill()
    printed, _ = run.communicate(timeout=60)
    assert run.returncode == 1 and "ConnectionError: lost the Dask scheduler" in printed, printed
    records = [read_record(job) for job in build(tmp_path / "s")]
    assert all(record is None or record["status"] == "done" for record in records)
    go(tmp_path / "s", workers=2)
    assert numbers(tmp_path / "s") == undisturbed


def test_a_scheduler_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="no Dask scheduler answers"):
        go(tmp_path, scheduler="tcp://127.0.0.1:9")


def test_a_host_that_does_not_see_the_study_says_so(tmp_path):
    """The task as a worker runs it, where the run's folder is not what the run left."""
    result = run_task(build(tmp_path)[0], Run(tmp_path / "elsewhere", "1"))
    assert result.status == "failed" and "does not see" in result.detail and "shared file system" in result.detail


def test_a_gpu_is_never_shared_unless_asked(tmp_path, monkeypatch):
    """Slots are counted, not hardware: three jobs that want a GPU, one GPU, two workers."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    go(tmp_path, seconds=0.5, gpu=["a0", "a1", "a2"], workers=2)
    spans = {}
    for job in build(tmp_path, 0.5, gpu=["a0", "a1", "a2"]):
        record = read_record(job)
        assert ("gpu 7" in job.log_path.read_text()) == job.gpu  # others do not even see it
        if job.gpu:
            spans[job.name] = record["worker"]
    assert len(set(spans.values())) == 1  # one worker has the slot, and it runs one job at a time


def test_more_than_any_worker_has_is_refused(tmp_path):
    jobs = [replace(job, memory_gb=1e6) for job in build(tmp_path)]
    with pytest.raises(ValueError, match="no worker has as much"), Runner(tmp_path, "test", workers=1) as runner:
        runner.run(plan_jobs(jobs))


def test_a_full_disk_fails_by_name_and_the_next_run_makes_it_good(tmp_path, undisturbed):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"a small tmpfs cannot be mounted here, so a full disk was not tested: {mounted.stderr}")
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr}")
    try:
        build(disk / "s")
        (disk / "ballast").write_bytes(b"x" * 200_000)
        results = go(disk / "s", workers=2)
        assert any(r.status == "failed" and "No space left" in r.detail for r in results.values()), [
            (r.status, r.detail) for r in results.values()
        ]
        (disk / "ballast").unlink()
        assert set(r.status for r in go(disk / "s", workers=2).values()) <= {"done", "up to date"}
        assert numbers(disk / "s") == undisturbed
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
