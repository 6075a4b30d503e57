"""How a case is brought through its steps when something goes wrong: damage, a lost cluster, want of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from distributed import Client

from lungmix import errors
from lungmix.engine import Listener, Outcome, run_window
from lungmix.engine.deaths import OUT_OF_MEMORY, explained
from lungmix.engine.trouble import Vigil, has_ended_workers, is_lost, is_scheduler_failure
from lungmix.errors import ClusterError, DamageError, LungmixError
from lungmix.store import STAGES, Cohort, settle, stage_of, withdraw

T = TypeVar("T")

_TRIES = 3
LOST = "the connection to the scheduler was lost: start it again and run the same command, which goes on from here"


@dataclass(frozen=True)
class Care:
    """Goes through cases, a few at a time, and tries again what can be tried again.

    Attributes
    ----------
    client : distributed.Client
        The cluster.
    cohort : Cohort
        Opened for writing.
    listener : Listener
        Hears what is tried again.
    renew : callable
        What a scheduler that was started anew has to be told.
    """

    client: Client
    cohort: Cohort
    listener: Listener
    renew: Callable[[], None] = lambda: None

    def settle(self, name: str) -> None:
        """Withdraw what a case holds that is not what was written; see `lungmix.store.settle`."""
        if name in self.cohort:
            for what, reason in settle(self.cohort[name]).items():
                self.listener.say(f"{name}: {reason}: {f'the stage {what}' if what in STAGES else what} is made again")

    def through(self, names: Sequence[str], work: Callable[[str], None], size: int) -> Iterator[Outcome[str, None]]:
        """Settle and work on cases, and yield each as it ends for good.

        Parameters
        ----------
        names : sequence of str
            Cases.
        work : callable
            Called with a name, in a thread; does what is not done yet.
        size : int
            Cases in flight. Once workers have died of a case it is one at a time, and that case is tried once more.
        """
        again: list[str] = []
        vigil = Vigil(self.client, self.listener.say, self.renew)

        def attend(name: str) -> None:
            self._attend(name, work, vigil)

        for outcome in run_window(names, attend, lambda: 1 if again else size, vigil.leave):
            if outcome.error is not None and has_ended_workers(outcome.error):
                self.listener.say(f"{outcome.item}: {ended_reason(outcome.error)}; cases now run one at a time")
                again.append(outcome.item)
            else:
                yield outcome
        yield from run_window(again, attend, 1, vigil.leave)

    def of_all(self, what: str, work: Callable[[], T], mend: Callable[[DamageError], None]) -> T:
        """Do what reads many cases at once.

        Parameters
        ----------
        what : str
            How it is called.
        work : callable
            Changes nothing before its end.
        mend : callable
            Makes again what was withdrawn of a case because it is damaged, or sees to it that `work` does without.

        Returns
        -------
        object
            Of `work`.

        Raises
        ------
        DamageError
            If a case that was mended is damaged again.
        ClusterError
            If the scheduler was lost and did not come back.
        """
        vigil, mended, left = Vigil(self.client, self.listener.say, self.renew), set[str](), _TRIES
        while True:
            try:
                return explained(self.client, work)
            except DamageError as error:
                self._withdraw(error)
                if error.case in mended:
                    raise
                mended.add(error.case)
                mend(error)
            except Exception as error:
                left -= 1
                self._come_back(what, error, vigil, last=not left)

    def _attend(self, name: str, work: Callable[[str], None], vigil: Vigil) -> None:
        self.settle(name)
        for left in reversed(range(_TRIES)):
            try:
                explained(self.client, lambda: work(name))
                return
            except DamageError as error:
                self._withdraw(error)
                if not left:
                    raise
                self.listener.say(remade(error))
            except Exception as error:
                self._come_back(name, error, vigil, last=not left)

    def _come_back(self, what: str, error: Exception, vigil: Vigil, *, last: bool) -> None:
        """Return where the work can be tried again, once a lost scheduler is back; raise any other error."""
        if is_scheduler_failure(error) and not last:
            self.listener.say(f"{what}: the scheduler failed ({type(error).__name__}) and is asked again")
            return
        if not is_lost(error):
            raise error
        if last or not vigil.wait():
            raise ClusterError(LOST) from error
        self.listener.say(f"{what}: the scheduler was lost and is back: it goes on")

    def _withdraw(self, error: DamageError) -> None:
        stage = stage_of(error.array)
        case = self.cohort[error.case]
        if stage is not None:
            withdraw(case, stage, error.fault)

    def note(self, name: str, stage: str, error: Exception) -> None:
        """Record in the store why a case failed, so that the others can go on and the reason is not lost."""
        if has_ended_workers(error):
            reason = errors.anonymous(ended_reason(error))
        elif isinstance(error, LungmixError) and not isinstance(error, ClusterError):
            reason = error.anonymous
        else:
            return
        # On a full disk or a store that cannot be written the report still has the reason.
        with suppress(OSError, LungmixError):
            if name in self.cohort:
                case = self.cohort[name]
                case.fail(case.under_way or stage, reason)
            elif (origin := self.cohort.register.get(name)) is not None:
                self.cohort.enter({name: {**origin, "stage": stage, "reason": reason}})


def ended_reason(error: BaseException) -> str:
    """Return why a case ended workers, in one sentence."""
    return error.marked if isinstance(error, LungmixError) else OUT_OF_MEMORY


def remade(error: DamageError) -> str:
    """What people are told when something damaged is made again."""
    return f"{error.case}: {error.fault}: it is made again"
