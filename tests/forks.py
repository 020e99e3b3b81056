"""Processes that have the libraries imported already, to be killed or to be limited."""

import multiprocessing

import psutil

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.warm"])  # found where pytest runs in the root of the repository


def exit_code(seconds, work, *arguments):
    """Do `work` in a separate process, killed after so many seconds; return how it ended."""
    process = FORKS.Process(target=work, args=arguments)
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode


def has_ended(process):
    """Return whether a process has ended; the system may take a second to forget one whose parent is gone."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
