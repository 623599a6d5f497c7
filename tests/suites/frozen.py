"""A process that stands still: its connections stay open and nothing answers."""

import os
import signal
import subprocess


def freeze(process: "subprocess.Popen[bytes]") -> None:
    """Until SIGCONT. Back only when every thread of it stands: the signal alone comes some time after it is sent."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
