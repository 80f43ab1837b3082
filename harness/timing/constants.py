"""Every number that the measurement rests on, with its reason."""

from __future__ import annotations

import torch

CONFIDENCE = 0.95
ROUNDS = 24
# A budget beyond the default one is for what is still open: so many rounds more, up to four times as many.
ROUNDS_BUDGET_S = 30.0
MOST_TIMES_ROUNDS = 4

# A process keeps its own memory layout and hash seeds for life, so that rounds in one process agree more than they should.
# Three is the least number between which a spread can be seen.  Where a comparison is open after that, as many again take the
# other half of the rounds: processes scatter more than the means of their rounds do.
PROCESSES = 3
MOST_PROCESSES = 2 * PROCESSES
# Looks between them: whose interval of this confidence has a verdict needs no more.  Four looks at 98 % call none of 1,000 equal
# pairs faster or slower (`property_tests.tools.clock_statistics`), and take 14 of the 24 rounds.
LOOK_CONFIDENCE = 0.98

# Looks within a process: after three rounds, and again after six, whoever has an interval wholly beyond a factor of 2 runs no
# more there; with six rounds in all, hence two processes, no more at all.  With fewer, from two on, it has to be beyond 10.
# The wider margin pays for looking early and often.  From the margin to the guard it is log(2 / 1.05) = 0.64.  On a machine
# so busy that rounds scatter by 50 % and processes by 10 %, the mean of six rounds in two processes has a deviation of
# sqrt(0.5 ** 2 / 6 + 0.1 ** 2 / 2) = 0.22: three deviations, and the interval's own width comes on top; on a quiet one, with
# 5 % and 2 %, 26 deviations.  That of two rounds is 0.36, and log(10 / 1.05) = 2.25 six times that.
GUARD = 2.0
EARLY_GUARD = 10.0
LOOKS = (2, 3, 6)
SETTLED_ROUNDS = 6

# A block is much longer than the resolution of the clocks (0.1 us on the CPU, 0.5 us for CUDA events) and much shorter
# than a scheduler's time slice, so that an interruption spoils one block and not a whole round.
BLOCK_S = 2e-3
# Calls get faster after the calibration; this keeps their blocks above the floor.
BLOCK_HEADROOM = 1.25
# A block of 2.5 ms that another process interrupts takes two to five times as long.  On two cores with four busy processes
# that is every second block: the median of 30 ratios of a function to itself then scattered by 56 %, and by 0.4 % where
# interrupted blocks were repeated, up to five times in all.  A block counts as interrupted where the thread did not run for
# more than a hundredth of it, or of 2 ms where it is one short cold call: that is 20 us, and a slice takes longer.  What
# happens while the caches are emptied disturbs nothing.  Blocks with more work than a scheduler's slices are interrupted anyway, and average it out;
# those that take long without working wait for something of their own.
BLOCK_TRIES = 5
INTERRUPTED = 0.01
SHORT_BLOCK_S = 10e-3
LONG_BLOCK_S = 50e-3
# After an interruption, the next blocks begin with a pause: of those on two cores with eight busy processes a quarter is then
# repeated, and without it every block twice.
PAUSE_S = 1e-3
WARY_BLOCKS = 20
# A machine on which more blocks are repeated than a quarter of those that count is said to be busy.
BUSY = 0.25

# The smallest number of rounds for which [min, max] covers the median with 95 %: 1 - 2 ** (1 - 6) = 0.97.  Below it a
# bootstrap promises too much, and the scatter of two to five rounds is nearly unknown: Student's t for two is 12.7, and leaves
# a ratio of 10 open.  Only slow calls have so few rounds, and theirs scatter little, for what interrupts them averages out.
# So the scatter of the rounds counts beside 20 %, with the weight of four more rounds (a moderated t: Smyth, Linear models and
# empirical Bayes methods for assessing differential expression, 2004).
BOOTSTRAP_ROUNDS = 6
PRIOR_SCATTER = 0.2
PRIOR_WEIGHT = 4
# How much whole processes scatter, of which three say little: up to 10 %, each power of ten as likely as another, and below
# 0.05 %, less than any interval's width, all alike.  A longer tail covers a scatter of 5 % better (91 % in place of 88 %), and
# widens the intervals of processes that differ by chance: with 30 % in place of 10 %, a change of 5 % under a scatter of 1 % is
# seen in 94 % of the comparisons in place of 97 %.
LEAST_PROCESS_SCATTER = 0.0005
MOST_PROCESS_SCATTER = 0.1
# The ends of a 95 % interval are then known to about 1 % of its width.
RESAMPLES = 2000

# Clocks of a GPU rise over tens of milliseconds; a CPU needs its caches and branch predictors filled.
WARM_UP_S = {"cpu": 5e-3, "cuda": 0.1}
# Cold caches: where the CPU says how large its last-level cache is, twice as much: replacement is not strictly by age, and a
# cache that takes what others evict adds to theirs.  A sum of 1 MiB goes from 11 us to 67 us by it, and no further by 256 MB,
# which is gone through where the CPU does not say.  On a GPU, whose lines are placed by a hash, five times the second-level
# cache, and no less than 256 MB, for some have a further cache behind it that they do not tell of.
FLUSH_BYTES = 256 * 2**20
FLUSH_CACHES = {"cpu": 2, "cuda": 5}
# Cold calls are timed one by one.  The host's clock is exact to 0.1 us; events to 0.5 us, of which 20 leave a ninth.
COLD_CALLS = {"cpu": 1, "cuda": 20}
# Before a capture, libraries must have made their handles and workspaces; PyTorch's documentation asks for three calls.
CAPTURE_WARM_UPS = 3
# The compiler takes about 2 s for a loss, and 10 ms for each ATen call of an unrolled loop: 5 s for 259 of them, 13 s for 1027.
# It cannot be stopped, so that it is not started where it would take longer than there is.
COMPILE_S = 2.0
COMPILE_CALL_S = 0.01
# What a clock needs is no loss's time, and not taken off a budget: the compiler is loaded in 3 s, on a machine under load in
# 30 s; the memory that empties a cache of 480 MB is taken in 0.9 s, on a virtual machine that never touched it in more than 5 s.
TOOLS_S = 60.0
# What another process compiles again it finds in the compiler's cache, in 3 to 15 % of the time.
COMPILE_AGAIN = 0.2
# A call this long amortises its own cold start, and calibration would only show that one call fills a block.  Not so on a
# device, where a first call may load and compile kernels for seconds: there one call comes first all the same.
SLOW_CALL_S = 0.1

# On a machine that others keep busy, a budget lasts up to this many times its seconds: two runs, one of them beside six busy
# processes on two cores, then measure the same cells.
STRETCH = 3.0
# Trials (correctness and exact costs) may take half of the budget, and each half of what is then left of that: a loop without
# end is stopped, and whoever comes after it still has a part.  What takes longer could not be timed in three processes.
TRIAL_SHARE = 0.5
TRIAL_LIMIT = 0.5
# What cannot be stopped in a trial (one kernel, Python between two ATen calls) may take all of a budget.  Whoever comes after
# it still has what it would have had, but no more than this for trials and this for rounds, beyond the budget if need be: a
# process starts in 2 s, on a machine under load in 4 s, and 30 blocks of 2 ms of ten quick ones take less than 1 s.
RESERVE_S = 5.0
# What is stopped this many times later than it should have been is said to have been unstoppable.
LATE = 1.5
# What a trial would take is known by growth only, from times that err on the long side: this many times too long is hopeless.
HOPELESS = 3
# Counting adds 11 to 14 us to every ATen call, four fifths and more of the time of a loop of small ones.  Less than that is
# taken off the estimate of a call's time, which then still errs on the long side.
COUNTED_CALL_S = 10e-6
COUNTED_PART = 0.8
# A loop of more is spared the calls that count what a first, cold one cannot.
LOOP_CALLS = 5000
# Making inputs, warming up, calibrating and auditing one implementation whose calls are quick.
SET_UP_S = 0.05
# Below this a process is not worth its start.
LEAST_PROCESS_S = 0.2
# An interpreter with torch in it takes this long to end.
LEAVE_S = 0.3
# A worker checks its deadline between blocks; this is for the block that it is in, and for leaving.
GRACE_S = 4.0

# |loss - reference| over |loss| + sum |x dL/dx|, the size that rounding is relative to.  Thousands of times the unit
# roundoff, for this only keeps wrong implementations out of the ranking; finding errors is the rules' work.
AGREEMENT = {torch.float64: 1e-6, torch.float32: 1e-3}
# The same implementation on the same input in another process differs by the order of sums alone; more than 1 % is another
# function under the same name.
SAME_FUNCTION = 1e-2

# After its rounds, an implementation is called on inputs that nobody has seen: as many as are quick to make, which takes about
# 50 ns an element, and of which the least disturbed tells what a call takes.  What is remembered from call to call makes those
# that were timed tens of times quicker; what only lies in a cache of the processor, never three times.  A single call has its
# own cold start, on a device also a launch and a wait.
MOST_UNSEEN = 8
TIMED_BATCHES = (
    2  # inputs that blocks take in turn: nothing that is remembered by place, value or version is right for both
)
AUDIT_SHARE = 0.1  # of the time that a heat has
FULL_PASS = 3.0  # forward passes: the backward pass works out a gradient for each of the two factors of a product
UNSEEN_ELEMENTS = 2**18
SEEN_BEFORE = 3.0
ASKED_AGAIN = 3
SEEN_BEFORE_S = {"cpu": 50e-6, "cuda": 500e-6}
# What other threads take while the one that was timed only waits; a pool that is idle takes nothing.
SETTLE_S = 5e-3
LEFT_OVER_S = 0.5e-3
MOST_WAITS = 40
# In a process of one thread the others take nothing.
OTHERS_WORKED_S = 50e-6
WRITTEN_TO = "has been modified by an inplace operation"  # how autograd says that what it saved was written to

# No loss reads its inputs twice as quickly as the quicker of a sum and a dot product reads as many bytes.  Below 256 KiB the
# start of a kernel is a part of both.
FASTER_THAN_A_SUM = 2.0
LEAST_READ_BYTES = 2**18
# A clock outside sees a round trip more than the one inside, 10 us to 100 us of a block's 2 ms, and on a busy machine now and
# then 10 ms, which is not processor time.  Of one thread the processor time is at most the wall time.
CLOCKS_APART = 1.25
# Of the unit of the narrower dtype: what is computed in it is off by half of that and more, of the largest element; what is
# only kept in it without loss is off by what rounding in all digits makes, 1e-4 at most in a long sum in float32.
FEWER_DIGITS = 0.25

# Sizes where a declaration names none: overhead-bound, mixed, and large enough to show growth.
LADDER = (8, 64, 512)
# 2 ** 22 float32 elements are 16 MiB: beyond a core's own caches, and quick to make.
MAX_ELEMENTS = 2**22

# The allocator is the largest source of noise on the CPU: by default glibc gives large blocks back to the system at every
# free and faults the pages in again at every call.  These keep them: 471-624 us become 273-299 us for a weighted MSE of
# 262,144 elements.  Read at the start of a process, hence only in workers.
WORKER_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
}
