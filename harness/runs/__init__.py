"""Runs in which no code of the user's is in this process: jobs, each a loss x implementation in a process of its own.

perform    what a job does, in its process
conduct    runs one job to its end, however often its process dies, and says what became of every rule
driver     plans jobs, hands them to an executor, and keeps what they find
executors  where jobs run: threads of this machine, each with a process beside it, or a dask cluster
journal    what was found, written as it comes, to go on from after an interruption
"""
