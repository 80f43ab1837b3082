#!/bin/sh
# For any machine with a shell: ends with a code other than 0 where a loss is wrong, and leaves loss-report.
set -eu
pip install wheels/loss_harness-*.whl -e .
loss-harness verify losses --write junit:loss-report/report.xml --write html:loss-report/report.html
