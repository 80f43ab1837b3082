"""Other people's code in processes of its own: with limits, watched, and without a way to harm who asked for it.

    sandbox    asks for a function to be run apart, and says how that ended
    zygote     a process that has imported torch and the harness, and nothing of the user's; every job is a fork of it
    supervisor watches one job: its time, its memory, its output, its children
    worker     runs one function, and tells what it does
    limits     what a job may take
    events     the lines that they tell each other

Nothing here knows what a loss is.
"""
