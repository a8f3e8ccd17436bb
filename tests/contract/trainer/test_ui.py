"""What only AI Toolkit's server can do to a job, and what must never be sent to it."""

import json
import os
from pathlib import Path

import anyio
import pytest
from anyio import to_thread
from starlette.responses import JSONResponse

from aitk_mcp.documents import read_document
from aitk_mcp.loss_log import LossLog, LossPoint
from aitk_mcp.trainers.port import Order
from aitk_mcp.trainers.ui import UiTrainer
from aitk_mcp.trainers.ui_http import UiHttp
from aitk_mcp.trainers.ui_jobs import UiJobs
from aitk_mcp.training.jobs import TrainingJobs
from mcp_toolserver.errors import BackendRejected, Conflict, InvalidArguments
from tests.contract.trainer.conftest import ENDLESS, PATIENCE_S, UiWorkshop, ends, reaches, trains
from tests.fakes.aitk_ui import FakeAitkUi


async def lose(workshop: UiWorkshop, fake: FakeAitkUi, job_id: str) -> None:
    """Kill a trainer behind the back of the server's worker: its row says running from now on."""
    await to_thread.run_sync(fake.worker.lose, await workshop.trainer_pid(job_id))


async def test_a_row_that_runs_without_a_process_is_a_failure_and_is_repaired(
    ui_workshop: UiWorkshop, fake_ui: FakeAitkUi
) -> None:
    jobs = ui_workshop.jobs
    job_id = (await jobs.start(ui_workshop.config("cat", steps=60))).job_id
    await trains(jobs, job_id)
    await lose(ui_workshop, fake_ui, job_id)
    failed = await ends(ui_workshop.jobs, job_id)
    assert failed.status == "failed"
    assert failed.failure is not None
    assert failed.failure.kind == "killed"
    await ui_workshop.jobs.reconcile()
    row = await UiJobs(ui_workshop.http).find(job_id)
    assert (row.status, row.pid) == ("stopped", None)
    assert (await ui_workshop.jobs.status(job_id)).status == "failed"
    assert (await jobs.resume(job_id)).status == "running"
    done = await ends(ui_workshop.jobs, job_id)
    assert (done.status, done.resumed_from_step) == ("completed", failed.checkpoint_step)


async def test_the_jobs_behind_a_dead_one_run_and_the_program_with_its_pid_too(
    ui_workshop: UiWorkshop, fake_ui: FakeAitkUi
) -> None:
    jobs = ui_workshop.jobs
    first = (await jobs.start(ui_workshop.config("first", steps=ENDLESS))).job_id
    second = (await jobs.start(ui_workshop.config("second", steps=2))).job_id
    await trains(jobs, first)
    await lose(ui_workshop, fake_ui, first)
    # This test's own process now has the trainer's number.
    fake_ui.tables.jobs[first].pid = os.getpid()
    assert (await ends(jobs, second)).status == "completed"
    assert (await jobs.status(first)).status == "failed"
    assert f"GET /api/jobs/{first}/stop" not in fake_ui.requests


async def test_a_waiting_job_is_never_stopped_and_an_ended_one_never_signalled(
    ui_workshop: UiWorkshop, fake_ui: FakeAitkUi
) -> None:
    jobs = ui_workshop.jobs
    running = (await jobs.start(ui_workshop.config("running", steps=ENDLESS))).job_id
    waiting = (await jobs.start(ui_workshop.config("waiting", steps=2))).job_id
    outcome = await jobs.stop(waiting, save=True, wait_s=5)
    assert outcome.report.status == "stopped"
    assert f"GET /api/jobs/{waiting}/mark_stopped" in fake_ui.requests
    await trains(jobs, running)
    await jobs.stop(running, save=False, wait_s=PATIENCE_S)
    with pytest.raises(Conflict, match="is stopped"):
        await jobs.stop(running, save=False, wait_s=5)
    assert f"GET /api/jobs/{waiting}/stop" not in fake_ui.requests
    assert fake_ui.requests.count(f"GET /api/jobs/{running}/stop") == 1


async def test_a_server_that_dies_between_save_and_stop_leaves_the_stop_to_the_next(ui_workshop: UiWorkshop) -> None:
    jobs = ui_workshop.jobs
    name = ui_workshop.config("cat", steps=ENDLESS, save={"save_every": ENDLESS})
    job_id = (await jobs.start(name)).job_id
    await trains(jobs, job_id)
    await ui_workshop.trainer.stop(job_id, save=True)
    assert (await ui_workshop.jobs.status(job_id)).info == "Stopping"
    stopped = await ends(ui_workshop.jobs, job_id)
    assert stopped.status == "stopped"
    assert stopped.checkpoint_step


async def test_more_steps_go_on_under_the_same_job(ui_workshop: UiWorkshop) -> None:
    jobs = ui_workshop.jobs
    first = await ends(jobs, (await jobs.start(ui_workshop.config("cat", steps=6))).job_id)
    more = await ends(jobs, (await jobs.start(ui_workshop.config("cat", steps=12))).job_id)
    assert (more.job_id, more.status, more.total_steps) == (first.job_id, "completed", 12)
    assert more.resumed_from_step == 6


async def test_a_job_of_somebody_else_keeps_its_name_and_config(ui_workshop: UiWorkshop) -> None:
    theirs = await UiJobs(ui_workshop.http).put("cat", "0", {"job": "extension"})
    with pytest.raises(Conflict, match="did not order"):
        await ui_workshop.jobs.start(ui_workshop.config("cat", steps=2))
    assert await UiJobs(ui_workshop.http).find(theirs.job_id) == theirs
    listed = (await ui_workshop.jobs.all())[0]
    assert [(report.job_id, report.status, report.total_steps) for report in listed] == [(theirs.job_id, "stopped", 0)]


@pytest.mark.parametrize(
    ("key", "value", "said"), [("training_folder", "/elsewhere", "/elsewhere"), ("type", "sd_trainer", "sd_trainer")]
)
async def test_what_the_server_could_not_follow_is_refused_before_there_is_a_row(
    ui_workshop: UiWorkshop, fake_ui: FakeAitkUi, key: str, value: str, said: str
) -> None:
    name = ui_workshop.config("cat", steps=2)
    path = anyio.Path(ui_workshop.root / "configs" / f"{name}.yaml")
    text = await path.read_text()
    old = f"training_folder: {ui_workshop.root}/output" if key == "training_folder" else "type: diffusion_trainer"
    await path.write_text(text.replace(old, f"{key}: {value}"))
    config = await ui_workshop.configs.get(name)
    with pytest.raises(InvalidArguments, match=said):
        await ui_workshop.trainer.submit(Order(name, config.training, config.path))
    assert fake_ui.tables.jobs == {}


async def test_the_settings_are_only_read_and_their_token_goes_nowhere(
    ui_workshop: UiWorkshop, fake_ui: FakeAitkUi
) -> None:
    fake_ui.settings["HF_TOKEN"] = "hf_secret"
    jobs = ui_workshop.jobs
    job_id = (await jobs.start(ui_workshop.config("cat", steps=2))).job_id
    report = await ends(jobs, job_id)
    assert "hf_secret" not in f"{report}{await ui_workshop.http.folders()}{await jobs.logs(job_id, 1000)}"
    assert "POST /api/settings" not in fake_ui.requests


async def test_a_trainer_that_cannot_be_started_is_a_failure(ui_workshop: UiWorkshop, fake_ui: FakeAitkUi) -> None:
    fake_ui.worker.command = ["/nowhere/python"]
    failed = await ui_workshop.jobs.start(ui_workshop.config("cat", steps=2))
    assert failed.status == "failed"
    assert failed.failure is not None
    assert (failed.failure.kind, "/nowhere/python" in failed.failure.reason) == ("not_started", True)


async def test_a_job_that_still_loads_has_nothing_to_save(ui_workshop: UiWorkshop, fake_ui: FakeAitkUi) -> None:
    jobs = ui_workshop.jobs
    job_id = (await jobs.start(ui_workshop.config("cat", steps=ENDLESS))).job_id
    with pytest.raises(Conflict, match="trained nothing yet"):
        await jobs.save(job_id, wait_s=1)
    outcome = await jobs.stop(job_id, save=True, wait_s=PATIENCE_S)
    assert (outcome.report.status, outcome.saved) == ("stopped", False)
    assert f"GET /api/jobs/{job_id}/save_now" not in fake_ui.requests
    again = (await jobs.resume(job_id)).job_id
    await reaches(jobs, again, lambda report: report.step > 0)
    await jobs.stop(job_id, save=False, wait_s=PATIENCE_S)


async def test_a_log_of_megabytes_is_followed_by_its_end_alone(ui_workshop: UiWorkshop) -> None:
    row = await UiJobs(ui_workshop.http).put("cat", "0", {"job": "extension"})
    path = anyio.Path(ui_workshop.output("cat")) / "log.txt"
    await path.parent.mkdir(parents=True)
    frame = "\rcat:  50%|█████     | 5/10 [00:03<00:01,  3.69it/s]"
    await path.write_text("Running 1 job\n" + frame * 120_000)
    trainer = ui_workshop.trainer
    first = await trainer.log(row.job_id, max_bytes=1000)
    assert first.size_bytes == (await path.stat()).st_size > 6_000_000
    assert (first.head, len(first.tail.encode()) <= 1002) == ("", True)
    assert first.tail.endswith(frame)
    async with await path.open("a") as file:
        await file.write("\nTraining ended — schön\n")
    later = await trainer.log(row.job_id, max_bytes=1000)
    assert later.tail.endswith(f"{frame}\nTraining ended — schön\n")
    assert later.size_bytes == (await path.stat()).st_size
    # A new run begins a new log, which is shorter.
    await path.write_text("Running 1 job\nFound step 5 in metadata, starting from there\n")
    anew = await trainer.log(row.job_id, max_bytes=1000)
    assert anew.head == anew.tail == await path.read_text()


async def test_losses_come_with_their_learning_rates_however_many(ui_workshop: UiWorkshop) -> None:
    row = await UiJobs(ui_workshop.http).put("cat", "0", {"job": "extension"})
    folder = ui_workshop.output("cat")
    folder.mkdir(parents=True)
    assert await ui_workshop.trainer.losses(row.job_id) == []
    recorded = [LossPoint(step, 1 / step, 1e-4, float(step)) for step in range(1, 45_001)]

    def record() -> None:
        log = LossLog(folder / "loss_log.db", 0)
        log.add(recorded)
        log.close()

    await to_thread.run_sync(record)
    assert await ui_workshop.trainer.losses(row.job_id) == recorded


async def test_a_job_of_another_machine_is_deleted_only_when_its_trainer_is_silent(tmp_path: Path) -> None:
    fake = FakeAitkUi(tmp_path, machine="/far/away")
    with fake.serving() as url:
        http = UiHttp(url)
        workshop = UiWorkshop("ui", tmp_path, http)
        trainer = UiTrainer(http, tmp_path / "ui-jobs", copies=tmp_path / "copies")
        config = await workshop.configs.get(workshop.config("cat", steps=ENDLESS))
        document = read_document(json.loads(json.dumps(config.document).replace(str(tmp_path), "/far/away")))
        job_id = await trainer.submit(Order("cat", document, config.path))
        jobs = TrainingJobs(trainer, workshop.configs)
        await trains(jobs, job_id)
        with pytest.raises(Conflict, match="has ended"):
            await trainer.delete(job_id, models=True)
        outcome = await jobs.delete(job_id, models=True, wait_s=PATIENCE_S)
        assert (outcome.was_stopped, outcome.report.status) == (True, "stopped")
        assert [row.job_id for row in await UiJobs(http).all()] == []
        # The trainer has ended, and did not make its folder anew.
        assert not workshop.output("cat").exists()
        assert fake.worker.living() == []


async def test_a_deletion_that_ai_toolkit_did_not_do_is_told(ui_workshop: UiWorkshop, fake_ui: FakeAitkUi) -> None:
    row = await UiJobs(ui_workshop.http).put("cat", "0", {"job": "extension"})
    fake_ui.answers[f"/api/jobs/{row.job_id}/delete"] = [JSONResponse({})]
    with pytest.raises(BackendRejected, match="still there"):
        await ui_workshop.trainer.delete(row.job_id, models=True)
