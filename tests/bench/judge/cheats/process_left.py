"""A right answer, and a process of its own parent that stays."""

import os
import time

from nf4 import honest

started = []


def custom_kernel(data):
    if not started:
        started.append(True)
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(60)
            os._exit(0)
    return honest(data)
