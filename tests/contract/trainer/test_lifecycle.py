"""A training from its start to each of its ends, whichever trainer runs it."""

import math
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from PIL import Image

from lora_files.header import read_header
from mcp_toolserver.errors import Conflict, InvalidArguments, NotFound
from tests.contract.trainer.conftest import ENDLESS, PATIENCE_S, Workshop, ends, reaches, trains


async def test_a_training_runs_to_its_end_and_leaves_ai_toolkits_files(workshop: Workshop) -> None:
    jobs = workshop.jobs
    told: list[tuple[float, float | None]] = []

    async def report(done: float, total: float | None = None, message: str | None = None) -> None:
        told.append((done, total))

    started = await jobs.start(workshop.config("cat", steps=22))
    assert started.status == "running"
    done = await jobs.wait(started.job_id, 120, report)
    assert (done.status, done.step, done.total_steps, done.progress_percent) == ("completed", 22, 22, 100.0)
    assert done.info == "Training completed"
    assert done.failure is None
    assert done.checkpoint_step == 22
    assert done.model_path == "cat/cat.safetensors"
    assert told[-1] == (22, 22)
    names = {path.name for path in workshop.output("cat").iterdir()}
    assert {"cat.safetensors", "cat_000000020.safetensors", "cat_000000015.safetensors", "config.yaml"} <= names
    assert "cat_000000010.safetensors" not in names
    metadata = read_header(workshop.output("cat") / "cat_000000020.safetensors").metadata
    assert metadata["training_info"].startswith('{"step": 20, ')
    assert yaml.safe_load((workshop.output("cat") / "config.yaml").read_text())["config"]["name"] == "cat"


async def test_loss_log_and_samples_of_a_training(workshop: Workshop) -> None:
    jobs = workshop.jobs
    job_id = (await jobs.start(workshop.config("cat", steps=12))).job_id
    await ends(jobs, job_id)
    curve = await jobs.loss(job_id, 5)
    assert curve.total_points == 11
    assert [point.step for point in curve.points] == [1, 3, 6, 9, 11]
    assert curve.points[0].learning_rate == pytest.approx(1e-4)
    assert curve.trend is not None
    assert len(curve.sparkline) == 11
    with closing(sqlite3.connect(workshop.output("cat") / "loss_log.db")) as database:
        keys = database.execute("SELECT key, first_seen_step, last_seen_step FROM metric_keys ORDER BY key").fetchall()
    assert keys == [("learning_rate", 1, 11), ("loss/loss", 1, 11)]
    plot = await jobs.loss_plot(job_id)
    assert (plot.title, plot.checkpoint_steps, plot.sample_steps) == ("cat", (5, 10, 12), (10, 12))
    job, samples = await jobs.samples(job_id)
    assert [(sample.step, sample.prompt_index) for sample in samples] == [(10, 0), (12, 0)]
    assert job.prompts == ("pixcat in snow",)
    with Image.open(await jobs.sample_file(job_id, samples[0].path.name)) as picture:
        assert picture.size == (64, 64)
    page = await jobs.logs(job_id, 8)
    assert len(page.lines) == 8
    assert page.truncated
    assert any("12/12" in line for line in page.lines)


async def test_a_sample_that_is_not_there_and_a_path_that_leaves_are_not_found(workshop: Workshop) -> None:
    jobs = workshop.jobs
    job_id = (await jobs.start(workshop.config("cat", steps=2))).job_id
    await ends(jobs, job_id)
    for name in ("nothing.jpg", "../config.yaml", "/etc/passwd"):
        with pytest.raises(NotFound):
            await jobs.sample_file(job_id, name)


async def test_a_wait_that_runs_out_is_an_answer(workshop: Workshop) -> None:
    jobs = workshop.jobs
    job_id = (await jobs.start(workshop.config("cat", steps=ENDLESS))).job_id
    report = await jobs.wait(job_id, 0)
    assert (report.job_id, report.status) == (job_id, "running")
    await jobs.stop(job_id, save=False, wait_s=PATIENCE_S)


async def test_a_stop_tells_whether_it_saved_and_a_resume_goes_on_from_there(workshop: Workshop) -> None:
    jobs = workshop.jobs
    name = workshop.config("cat", steps=ENDLESS)
    job_id = (await jobs.start(name)).job_id
    await trains(jobs, job_id)
    outcome = await jobs.stop(job_id, save=True, wait_s=PATIENCE_S)
    stopped = outcome.report
    assert stopped.status == "stopped"
    assert outcome.saved is workshop.saves_on_demand
    assert stopped.checkpoint_step is not None
    assert f"step {stopped.checkpoint_step}" in outcome.message
    if workshop.saves_on_demand:
        assert stopped.checkpoint_step >= 6
        assert stopped.checkpoint_step == stopped.step or not workshop.saves_as_it_stops
    else:
        assert stopped.checkpoint_step % 5 == 0
        assert "cannot save" in outcome.message
    with pytest.raises(Conflict, match="is stopped"):
        await jobs.stop(job_id, save=True, wait_s=1)
    assert (await jobs.resume(job_id)).job_id == job_id
    again = await reaches(jobs, job_id, lambda report: report.step > (stopped.checkpoint_step or 0))
    assert again.resumed_from_step == stopped.checkpoint_step
    await jobs.stop(job_id, save=False, wait_s=PATIENCE_S)


async def test_a_stop_without_saving_saves_nothing(workshop: Workshop) -> None:
    jobs = workshop.jobs
    name = workshop.config("cat", steps=ENDLESS, save={"save_every": ENDLESS})
    job_id = (await jobs.start(name)).job_id
    await trains(jobs, job_id)
    outcome = await jobs.stop(job_id, save=False, wait_s=PATIENCE_S)
    assert (outcome.report.status, outcome.saved, outcome.report.checkpoint_step) == ("stopped", False, None)
    assert "nothing is on disk" in outcome.message


async def test_a_killed_trainer_is_a_failure_with_its_reason_and_can_be_resumed(workshop: Workshop) -> None:
    jobs = workshop.jobs
    job_id = (await jobs.start(workshop.config("cat", steps=90, sample={"sample_every": ENDLESS}))).job_id
    await trains(jobs, job_id)
    os.kill(await workshop.trainer_pid(job_id), signal.SIGKILL)
    failed = await ends(jobs, job_id)
    assert failed.status == "failed"
    assert failed.failure is not None
    assert (failed.failure.kind, "SIGKILL" in failed.failure.reason) == ("killed", True)
    assert failed.checkpoint_step
    await jobs.resume(job_id)
    done = await ends(jobs, job_id)
    assert (done.status, done.resumed_from_step, done.step) == ("completed", failed.checkpoint_step, 90)


async def test_a_restarted_server_finds_its_jobs_and_starts_the_waiting_ones(workshop: Workshop) -> None:
    first = await workshop.jobs.start(workshop.config("first", steps=40))
    second = await workshop.jobs.start(workshop.config("second", steps=2))
    assert (second.status, second.queue_position) == ("queued", 1)
    assert "next in the queue" in second.info
    restarted = workshop.jobs
    async with restarted.watching():
        assert (await ends(restarted, first.job_id)).status == "completed"
        assert (await ends(restarted, second.job_id)).status == "completed"
    reports, total = await restarted.all()
    assert ([report.job_id for report in reports], total) == ([second.job_id, first.job_id], 2)


async def test_the_queue_keeps_its_order_and_a_waiting_job_can_be_taken_out(workshop: Workshop) -> None:
    jobs = workshop.jobs
    running, out, last = [
        (await jobs.start(workshop.config(name, steps=steps))).job_id
        for name, steps in (("a", ENDLESS), ("b", 2), ("d", 2))
    ]
    positions = {report.job_id: report.queue_position for report in (await jobs.all("queued"))[0]}
    assert positions == {out: 1, last: 2}
    outcome = await jobs.stop(out, save=True, wait_s=5)
    assert (outcome.report.status, outcome.saved, outcome.report.started_at) == ("stopped", False, None)
    assert "will not start" in outcome.message
    assert (await jobs.status(last)).queue_position == 1
    await trains(jobs, running)
    await jobs.stop(running, save=False, wait_s=PATIENCE_S)
    assert (await ends(jobs, last)).status == "completed"
    assert (await jobs.status(out)).status == "stopped"


async def test_two_jobs_never_write_to_one_output_folder(workshop: Workshop) -> None:
    jobs = workshop.jobs
    name = workshop.config("cat", steps=ENDLESS)
    job_id = (await jobs.start(name)).job_id
    with pytest.raises(Conflict) as caught:
        await jobs.start(name)
    assert caught.value.details == {"job_id": job_id, "status": "running", "name": "cat"}
    await jobs.stop(job_id, save=False, wait_s=PATIENCE_S)


async def test_a_dataset_that_is_gone_is_refused_before_anything_starts(workshop: Workshop) -> None:
    name = workshop.config("cat", steps=2)
    moved = workshop.dataset().rename(workshop.root / "datasets" / "dogs")
    with pytest.raises(InvalidArguments) as caught:
        await workshop.jobs.start(name)
    assert "cats" in caught.value.message
    assert not (workshop.root / "jobs").exists()
    assert not workshop.output("cat").exists()
    assert moved.exists()


async def test_pictures_that_cannot_be_read_fail_the_job_with_a_reason(workshop: Workshop) -> None:
    jobs = workshop.jobs
    name = workshop.config("cat", steps=2)
    for picture in workshop.dataset().glob("*.png"):
        picture.write_bytes(b"no picture")
    failed = await ends(jobs, (await jobs.start(name)).job_id)
    assert failed.status == "failed"
    assert failed.failure is not None
    assert failed.failure.kind == "no_images"
    assert str(workshop.dataset()) in failed.failure.reason
    assert len(failed.warnings) == 3


async def test_an_unknown_job_and_an_unknown_config_name_the_closest(workshop: Workshop) -> None:
    jobs = workshop.jobs
    job_id = (await jobs.start(workshop.config("pixel_cat", steps=2))).job_id
    with pytest.raises(NotFound) as no_job:
        await jobs.status(job_id[:-1])
    assert no_job.value.details["closest_matches"] == [job_id]
    with pytest.raises(NotFound) as no_config:
        await jobs.start("pixel_cats")
    assert no_config.value.details["closest_matches"] == ["pixel_cat"]
    await ends(jobs, job_id)


async def test_a_save_on_demand_is_granted_or_refused_by_name(workshop: Workshop) -> None:
    jobs = workshop.jobs
    name = workshop.config("cat", steps=ENDLESS, save={"save_every": ENDLESS})
    job_id = (await jobs.start(name)).job_id
    await trains(jobs, job_id)
    if workshop.saves_on_demand:
        saved = await jobs.save(job_id, wait_s=PATIENCE_S)
        assert saved.status == "running"
        assert saved.checkpoint_step
        assert Path(workshop.output("cat") / f"cat_{saved.checkpoint_step:09d}.safetensors").exists()
    else:
        with pytest.raises(Conflict, match="cannot be asked to save"):
            await jobs.save(job_id, wait_s=PATIENCE_S)
    await jobs.stop(job_id, save=False, wait_s=PATIENCE_S)


async def test_a_training_that_diverges_is_flagged_with_the_step_where_it_began(workshop: Workshop) -> None:
    jobs = workshop.jobs
    done = await ends(jobs, (await jobs.start(workshop.config("cat", steps=12, train={"lr": 1e30}))).job_id)
    assert done.status == "completed"
    assert done.loss is None
    assert done.no_number_since is not None
    assert any(f"is NaN (no number) since step {done.no_number_since}" in warning for warning in done.warnings)
    curve = await jobs.loss(done.job_id, 20)
    assert [point.step for point in curve.points if math.isnan(point.loss)] == list(range(done.no_number_since, 12))


async def test_a_start_on_an_earlier_output_says_what_it_goes_on_from(workshop: Workshop) -> None:
    jobs = workshop.jobs
    first = await jobs.start(workshop.config("cat", steps=7))
    assert first.warnings == ()
    await ends(jobs, first.job_id)
    again = await jobs.start("cat")
    assert any("nothing is left to train: raise `steps`" in warning for warning in again.warnings)
    await ends(jobs, again.job_id)
    longer = await jobs.start(workshop.config("cat", steps=9))
    assert any("a checkpoint of step 7 of an earlier training" in warning for warning in longer.warnings)
    assert (await ends(jobs, longer.job_id)).resumed_from_step == 7
