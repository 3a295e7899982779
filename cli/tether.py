"""Runs a command that dies with its supervisor: `python -I -S tether.py SUPERVISOR_PID SIGNAL COMMAND ARGUMENT…`.

A supervisor that is SIGKILLed cannot tell its children to stop. The kernel can: `prctl(PR_SET_PDEATHSIG)` asks for a signal
when the parent dies, and outlives `exec`. The call must happen in the child, between fork and exec. `preexec_fn` would do it
there, but runs Python in a forked process whose other threads are gone and whose locks may be held for ever; so this file
is executed first, asks, and becomes the command: same pid, nothing left of it. Costs about 20 ms a start.

The signal is SIGKILL for web and workers: they have nobody to report to any more, and the jobs of a killed worker are taken
over by the next one (protocol P4). It is SIGTERM for Redis, which then writes what it has answered for: under `everysec` it
puts off a write while the one before is on its way to the disk, so that a SIGKILL can cost it a second of answered commands.

Linux only, as the call is; elsewhere the command runs untethered. "Parent" is the *thread* that forked, so a supervisor has
to start its children from a thread that lives as long as itself: the main one.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def main() -> None:
    supervisor, last_signal, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, last_signal, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != supervisor:  # it died before the call above: no signal will come any more
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606  # the command is the supervisor's own, no shell is wanted


if __name__ == "__main__":
    main()
