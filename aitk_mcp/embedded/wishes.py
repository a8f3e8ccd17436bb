"""What signals ask of a trainer. Standard library only: it is imported before everything that takes long."""

import signal
from typing import Literal


class Wishes:
    """SIGINT asks to stop, SIGUSR1 to save, SIGUSR2 to draw samples.

    When a stop is heeded depends on what the trainer does: `importing`, it is remembered, for an exception that is
    raised within an import may be lost there; `working`, it interrupts at once; `looping`, the step is finished first,
    so that a wish to save that came just before is still granted.
    """

    def __init__(self) -> None:
        self.stop = False
        self.save = False
        self.sample = False
        self._doing: Literal["importing", "working", "looping"] = "importing"

    def listen(self) -> None:
        """Take over the signals."""
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._hear)

    def work(self) -> None:
        """Heed a stop at once from now on; raises KeyboardInterrupt for one that has come."""
        self._doing = "working"
        if self.stop:
            raise KeyboardInterrupt

    def loop(self) -> None:
        """Leave it to the loop over the steps to heed a stop; a second one interrupts it."""
        self._doing = "looping"

    def _hear(self, number: int, frame: object) -> None:
        if number == signal.SIGUSR1:
            self.save = True
        elif number == signal.SIGUSR2:
            self.sample = True
        else:
            again, self.stop = self.stop, True
            if self._doing == "working" or (self._doing == "looping" and again):
                raise KeyboardInterrupt
