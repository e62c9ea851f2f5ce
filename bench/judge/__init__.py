"""Others' kernels, judged: right first, then timed beside ours. `docs/bench-judge.md` says what is defended, and how.

rules     what a submission is refused for, a sentence each
task      a folder in the form of kernel competitions: cases, inputs, checker, template
arena     memory that the judge shares with a submission, with guards around everything in it
process   the judge's end of a submission's process: stopped whenever it is not asked
launcher  starts such a process: it imports torch once, and forks
worker    the submission's end: loads it and calls it
ours      our kernel, as a submission
judge     test calls, then timed ones
tasks/    the tasks, each with all that a submission needs
"""
