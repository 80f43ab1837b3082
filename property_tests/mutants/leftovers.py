"""Mutants of the rule about what a call leaves behind: S04."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from mutants.pair import pair

KEPT = []
STARTED = []


def mean_squared(predictions, labels):
    return ((predictions - labels) ** 2).mean()


def opens_a_file(predictions, labels):
    KEPT.append(open(os.devnull))  # noqa: SIM115
    return mean_squared(predictions, labels)


def closes_its_file(predictions, labels):
    with open(os.devnull):
        return mean_squared(predictions, labels)


def starts_a_thread(predictions, labels):
    threading.Thread(target=threading.Event().wait, args=(30,), daemon=True).start()
    return mean_squared(predictions, labels)


def starts_a_thread_once(predictions, labels):
    if not STARTED:
        STARTED.append(threading.Thread(target=threading.Event().wait, args=(30,), daemon=True))
        STARTED[0].start()
    return mean_squared(predictions, labels)


def starts_a_process(predictions, labels):
    KEPT.append(subprocess.Popen([sys.executable, "-S", "-c", ""]))
    return mean_squared(predictions, labels)


def waits_for_its_process(predictions, labels):
    subprocess.run([sys.executable, "-S", "-c", ""], check=True)
    return mean_squared(predictions, labels)


def prints(predictions, labels):
    print("loss of", len(predictions))
    return mean_squared(predictions, labels)


def prints_backward(predictions, labels):
    total = mean_squared(predictions, labels)
    if total.requires_grad:
        total.register_hook(lambda gradient: print("gradient of", float(gradient)))
    return total


PAIRS = (
    pair("S04", "a file", opens_a_file, closes_its_file, aspect="open files"),
    pair("S04", "a thread", starts_a_thread, starts_a_thread_once, aspect="threads"),
    pair("S04", "a process", starts_a_process, waits_for_its_process, aspect="child processes"),
    pair("S04", "a line", prints, mean_squared, severity="warning", aspect="prints", says="loss of"),
    pair("S04", "a line of backward", prints_backward, mean_squared, severity="warning", aspect="prints"),
)
