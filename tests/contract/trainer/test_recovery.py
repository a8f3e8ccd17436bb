"""What is true after processes died, hung, or gave their pid to others; and who may train at the same time."""

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from aitk_mcp.trainers.cli import CliTrainer
from aitk_mcp.trainers.port import Order
from aitk_mcp.trainers.processes import identify
from aitk_mcp.training.jobs import TrainingJobs
from tests.contract.trainer.conftest import ENDLESS, PATIENCE_S, CommandLineWorkshop, ends, trains

DEAF = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("Running 1 job", flush=True)
{more}
while True:
    signal.pause()
"""


@pytest.fixture
def workshop(command_line_workshop: CommandLineWorkshop) -> CommandLineWorkshop:
    """Give the trainers whose processes are ours."""
    return command_line_workshop


async def gone(pid: int) -> None:
    """Wait until a process has ended."""
    with anyio.fail_after(PATIENCE_S):
        while await to_thread.run_sync(identify, pid):
            await anyio.lowlevel.checkpoint()


def keeper_of(trainer_pid: int) -> int:
    stat = Path(f"/proc/{trainer_pid}/stat").read_text()
    return int(stat[stat.rindex(")") + 2 :].split()[1])


@pytest.mark.parametrize("asked", [False, True])
async def test_a_job_whose_keeper_died_too_is_judged_by_what_is_on_disk(
    workshop: CommandLineWorkshop, asked: bool
) -> None:
    jobs = workshop.jobs
    job_id = (await jobs.start(workshop.config("cat", steps=ENDLESS))).job_id
    await trains(jobs, job_id)
    pid = await workshop.trainer_pid(job_id)
    keeper = await to_thread.run_sync(keeper_of, pid)
    os.kill(keeper, signal.SIGKILL)
    await gone(keeper)
    assert (await jobs.status(job_id)).status == "running"
    if asked:
        assert (await jobs.stop(job_id, save=False, wait_s=PATIENCE_S)).report.status == "stopped"
    else:
        os.kill(pid, signal.SIGKILL)
        failed = await ends(jobs, job_id)
        assert failed.status == "failed"
        assert failed.failure is not None
        assert "no exit code" in failed.failure.reason


async def test_a_training_that_finished_unseen_is_completed(workshop: CommandLineWorkshop) -> None:
    jobs = workshop.jobs
    job_id = (await jobs.start(workshop.config("cat", steps=60))).job_id
    pid = await workshop.trainer_pid(job_id)
    os.kill(await to_thread.run_sync(keeper_of, pid), signal.SIGKILL)
    assert (await ends(jobs, job_id)).status == "completed"


async def test_another_program_under_the_same_pid_is_not_the_trainer(workshop: CommandLineWorkshop) -> None:
    jobs = workshop.jobs
    job_id = (await jobs.start(workshop.config("cat", steps=ENDLESS))).job_id
    await trains(jobs, job_id)
    run = await workshop.run(job_id)
    pid = await workshop.trainer_pid(job_id)
    keeper = await to_thread.run_sync(keeper_of, pid)
    for process in (keeper, pid):
        os.kill(process, signal.SIGKILL)
        await gone(process)
    path = run.path / "process.json"
    recorded = json.loads(await anyio.Path(path).read_text())
    # This test's own process now has the trainer's number, but not its birth.
    recorded["trainer"]["pid"] = os.getpid()
    await anyio.Path(path).write_text(json.dumps(recorded))
    assert (await jobs.status(job_id)).status == "failed"
    assert not await to_thread.run_sync(run.send, signal.SIGTERM)
    assert (await jobs.resume(job_id)).status == "running"


@pytest.mark.parametrize(
    ("more", "sent"), [("", "SIGTERM"), ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "SIGKILL")]
)
async def test_a_trainer_that_does_not_hear_is_ended_harder(
    workshop: CommandLineWorkshop, more: str, sent: str
) -> None:
    script = workshop.root / "deaf.py"
    script.write_text(DEAF.format(more=more))
    deaf = replace(workshop.command_line, command=(sys.executable, str(script)), heeds_wishes=False)
    trainer = CliTrainer(deaf, workshop.root / "jobs", stop_patience_s=1.0)
    config = await workshop.configs.get(workshop.config("cat", steps=2))
    jobs = TrainingJobs(trainer, workshop.configs)
    job_id = await trainer.submit(Order(config.name, config.training, config.path))
    while not (await jobs.logs(job_id, 1)).lines:
        # Not yet deaf.
        await jobs.wait(job_id, 0.05)
    outcome = await jobs.stop(job_id, save=True, wait_s=PATIENCE_S)
    assert outcome.report.status == "stopped"
    assert (await trainer.job(job_id)).signal_name == sent


async def test_a_trainer_that_cannot_be_started_is_a_failure(workshop: CommandLineWorkshop) -> None:
    broken = replace(workshop, command_line=replace(workshop.command_line, command=("/nowhere/python", "run.py")))
    failed = await broken.jobs.start(workshop.config("cat", steps=2))
    assert failed.status == "failed"
    assert failed.failure is not None
    assert failed.failure.kind == "not_started"
    assert "/nowhere/python" in failed.failure.reason


async def test_each_gpu_has_a_queue_of_its_own_and_nobody_overtakes(workshop: CommandLineWorkshop) -> None:
    if workshop.engine == "embedded":
        # One slot for all: which GPU is asked for plays no part.
        jobs = workshop.jobs
        first = await jobs.start(workshop.config("a", steps=ENDLESS), "0")
        second = await jobs.start(workshop.config("b", steps=2), "1")
        assert (first.status, first.gpu_ids, second.status, second.gpu_ids) == ("running", "cpu", "queued", "cpu")
        return
    jobs = workshop.jobs
    wanted = {"a": "0", "b": "1", "both": "0,1", "later": "1", "other": "2"}
    started = {name: await jobs.start(workshop.config(name, steps=ENDLESS), gpu) for name, gpu in wanted.items()}
    status = {name: report.status for name, report in started.items()}
    assert status == {"a": "running", "b": "running", "both": "queued", "later": "queued", "other": "running"}
    await jobs.stop(started["b"].job_id, save=False, wait_s=PATIENCE_S)
    await jobs.reconcile()
    # GPU 1 is free, but the job that waits for both has the older right to it.
    assert (await jobs.status(started["later"].job_id)).status == "queued"
    await jobs.stop(started["a"].job_id, save=False, wait_s=PATIENCE_S)
    await jobs.reconcile()
    assert (await jobs.status(started["both"].job_id)).status == "running"
    launch = await to_thread.run_sync((await workshop.run(started["both"].job_id)).launch)
    assert launch.environment["CUDA_VISIBLE_DEVICES"] == "0,1"


async def test_two_servers_on_one_folder_start_a_job_once(workshop: CommandLineWorkshop) -> None:
    names = [workshop.config(f"job{index}", steps=ENDLESS) for index in range(4)]
    servers = [workshop.jobs for _ in names]
    async with anyio.create_task_group() as tasks:
        for server, name in zip(servers, names, strict=True):
            tasks.start_soon(server.start, name)
    status = [report.status for report in (await workshop.jobs.all())[0]]
    assert sorted(status) == ["queued", "queued", "queued", "running"]


async def test_a_trainer_that_stands_still_is_flagged_while_its_process_lives(workshop: CommandLineWorkshop) -> None:
    jobs = workshop.jobs
    job_id = (await jobs.start(workshop.config("cat", steps=ENDLESS))).job_id
    await trains(jobs, job_id)
    assert (await jobs.status(job_id)).warnings == ()
    run = await workshop.run(job_id)
    os.kill(await workshop.trainer_pid(job_id), signal.SIGSTOP)
    written_at = time.time() - 11 * 60
    await to_thread.run_sync(os.utime, run.log, (written_at, written_at))
    (warning,) = (await jobs.status(job_id)).warnings
    assert warning.startswith("No step for 11 minutes while the process lives; a step usually takes")
    os.kill(await workshop.trainer_pid(job_id), signal.SIGCONT)
    await jobs.stop(job_id, save=False, wait_s=PATIENCE_S)
