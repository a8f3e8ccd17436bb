"""Whether another program may hard-link a LoRA: not where a trainer may yet write into the very file."""

from aitk_mcp.models.models import Model
from aitk_mcp.trainers.port import ENDED, Trainer


class Links:
    """Tell which LoRAs of a trainer can be linked.

    AI Toolkit overwrites a file in place, which every name of it then shows. A job that this server starts finds no
    linked files, for they are copied first (`aitk_mcp.trainers.unsharing`); one that AI Toolkit's own server starts
    would.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    async def are_safe(self, model: Model) -> bool:
        """Return whether no training changes the file under a further name of it, neither now nor later."""
        if model.etag is None:
            return False
        if model.kind == "exported" or self._trainer.engine == "embedded":
            # These are written beside and renamed.
            return True
        if self._trainer.engine == "ui":
            return False
        jobs = await self._trainer.jobs()
        return all(job.status in ENDED or job.output_folder != model.path.parent for job in jobs)
