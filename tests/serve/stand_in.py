"""A worker process without engines: it speaks as serve.worker does, hangs, dies or is refused where told."""

import signal
import time
from multiprocessing.connection import Connection

from engines.errors import EngineError, Exit
from pipeline.parallel.worker import Ended, Refused, Started
from serve.store import Store
from serve.watchdog import Took

HANG = 666  # the seed of a job that never comes to a tick


def work(descriptor):
    """Make each job at once, but hang in those of seed HANG, and in comparisons of a video "hang"."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Connection(descriptor) as connection:
        number, device, settings = connection.recv()
        if (settings.home / f"refused-{number}").exists():
            connection.send(Refused(EngineError(f"{device}: the device is gone")))
            return
        if (settings.home / f"dies-{number}").exists():
            return
        if (settings.home / f"hangs-{number}").exists():
            time.sleep(1_000)
        connection.send(Started({}, []))
        store = Store(settings.database)
        while not connection.poll(0.01):
            if asked := store.comparisons.claim(number):
                connection.send(Took(asked))
                time.sleep(1_000)
            if job := store.claim(number):
                connection.send(Took(job))
                if job.seed == HANG:
                    time.sleep(1_000)
                store.end(job, "completed")
                connection.send(Ended({}, Exit.INTERRUPTED))
