"""POST /v1/score?async=1: requests that are scored by and by, and asked for again under an id.

Whichever worker has time takes what waits longest; its thread gives way to requests that somebody waits for.
"""

import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from typing import Any

import orjson

from infra.errors import StoreError
from infra.queued_work import DONE, QUEUED, QueuedWork, Work
from lookup_api.deadline import Deadline, TooLate
from lookup_api.ladder import Facts
from lookup_api.load import FULL, Load
from lookup_api.problems import Problem
from lookup_api.release_watch import FOLLOWER_NICENESS, ReleaseWatch
from lookup_api.root.root_metrics import LATE
from lookup_api.score_request import ScoreQuery
from lookup_api.scores import NobodyScored, Scoring, without_barred

log = logging.getLogger(__name__)

LOOK_S = 0.25
"""Between looks for what other workers were asked."""
BUSY_S = 1.0
"""Between two requests, while the worker is busy with others."""
TIME_S = 30.0
"""That one request may take."""
LOST_S = 60.0
"""After it was taken; whoever took it ended before it was done."""
SCORE_BYTES, ID_BYTES = 16, 24
"""In JSON, with what divides them."""
AGAIN = b" "
"""After the JSON of a request that waits once more."""
FAILED, RUNNING = "failed", "running"
_ID = re.compile(r"[0-9a-f]{32}")


class LaterScores:
    """Safe to use from any thread. Starts its own thread with `start`."""

    def __init__(
        self,
        queue: QueuedWork,
        scoring: Scoring,
        watch: ReleaseWatch,
        facts: Callable[[int], Facts | None],
        load: Load,
        life_s: float,
        is_ending: Callable[[], bool],
    ) -> None:
        """facts: live facts of a viewer. life_s: for which what waits, and then its result, is kept. is_ending: whether
        the server was told to stop: other workers take what waits then."""
        self._queue = queue
        self._scoring = scoring
        self._watch = watch
        self._facts = facts
        self._load = load
        self._life_s = life_s
        self._is_ending = is_ending
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="later-scores", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after the request that it works on."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(1.0)
        self._scoring.root.leaf.close()
        self._queue.close()

    def put(self, query: ScoreQuery) -> dict[str, Any]:
        """What a caller is told of a request that was taken. Raises Problem (503) where too many wait, StoreError."""
        work_id = self._queue.put(query.to_json(), room_of(query))
        if work_id is None:
            later = {"Retry-After": str(self._scoring.retry_after_s)}
            raise Problem(503, "queue-full", "Too many requests wait to be scored.", later)
        self._wake.set()
        return {"id": work_id, "status": QUEUED, "kept_s": self._life_s}

    def look(self, work_id: str) -> Work:
        """What the queue knows of a request. Raises Problem (404) for one that is not known, or no more; StoreError."""
        work = self._queue.get(work_id) if _ID.fullmatch(work_id) else None
        if work is None:
            raise Problem(404, "no-such-request", "No request of this id is known, or it is too long ago.")
        return work

    def told(self, work_id: str, work: Work) -> dict[str, Any]:
        """What a caller is told of it. Rules run again, by the release that is served now too: who must not be shown by
        now has no score any more."""
        told: dict[str, Any] = {"id": work_id, "status": work.state}
        if work.state == QUEUED:
            return told
        if work.state != DONE:
            if work.age_s < LOST_S:
                return told | {"status": RUNNING}
            return told | {"status": FAILED, "why": "The server that worked on it ended. Send it again."}
        result = orjson.loads(work.data)
        if "why" in result:
            return told | {"status": FAILED, "why": result["why"]}
        query = ScoreQuery.from_json(result["query"])
        with self._watch.hold() as release:
            answer = without_barred(result["answer"], query, release, self._facts(query.user_id))
        return told | {"answer": answer}

    def step(self) -> bool:
        """Scores one request, if any waits; one that a model came too late for waits once more, if its life allows.
        Raises StoreError."""
        taken = self._queue.take()
        if taken is None:
            return False
        work_id, data = taken
        result, is_late = self._result(data)
        if not is_late or data.endswith(AGAIN) or not self._queue.put_back(work_id, data + AGAIN, TIME_S):
            self._queue.finish(work_id, orjson.dumps(result, option=orjson.OPT_SERIALIZE_NUMPY))
        return True

    def _result(self, data: bytes) -> tuple[dict[str, Any], bool]:
        """What is kept of it, and whether a model came too late."""
        try:
            values = orjson.loads(data)
            query = ScoreQuery.from_json(values)
            with self._watch.hold() as release:
                if release is None:
                    return {"why": "No release is served yet."}, False
                facts = self._facts(query.user_id)
                answer = self._scoring.answer(query, release, facts, Deadline.after(TIME_S), FULL)
        except Problem as problem:
            return {"why": problem.detail}, isinstance(problem, NobodyScored) and problem.late
        except TooLate as error:
            return {"why": f"There was too little time: {error}."}, True
        except Exception as error:  # whatever it died of, others wait
            log.error("a queued request could not be scored", exc_info=error)
            return {"why": "The server failed to score it. The failure was logged."}, False
        return {"query": values, "answer": answer}, LATE in answer["failed"].values()

    def _run(self) -> None:
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, 0, FOLLOWER_NICENESS)  # of this thread
        while not self._stop.is_set() and not self._is_ending():
            is_busy = self._load.level != FULL
            try:
                done = self.step()
            except Exception as error:  # whatever it died of, more will be queued
                unforeseen = None if isinstance(error, StoreError) else error
                log.warning("queued requests are left alone for a while: %s", error, exc_info=unforeseen)
                done = False
            if is_busy:
                self._stop.wait(BUSY_S)
            elif not done:
                self._wake.wait(LOOK_S)
                self._wake.clear()


def room_of(query: ScoreQuery) -> int:
    """Bytes that a request's result takes at most, its query included."""
    people, models = len(query.candidate_ids), len(query.models)
    return 6 * len(query.to_json()) + people * (SCORE_BYTES * models + ID_BYTES) + 1024 * (models + 1)
