"""Does once, before any job is forked, what Hypothesis does when it first draws: half of the time of a quick job."""

from hypothesis import strategies as st

from harness.drawing import hypothesis_runs

hypothesis_runs.run(
    st.tuples(st.integers(0, 9), st.binary(max_size=2), st.sampled_from("ab")), lambda drawn: None, examples=5, start=0
)
