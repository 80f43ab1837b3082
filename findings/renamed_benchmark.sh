#!/usr/bin/env bash
# `--benchmark-compare-fail` holds a benchmark to the saved one of the same name. One that is renamed, or is not in the saved
# file, passes however slow it has become, and its table says nothing of a comparison that did not happen.
#
# Source: https://pytest-benchmark.readthedocs.io/en/latest/comparing.html
#
# Output:
#     pytest           9.2.0
#     pytest-benchmark 5.3.1
#     10,000 times the work, same name: fails
#     10,000 times the work, renamed:   passes
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
cd "$folder"
env/bin/pip install --quiet pytest==9.2.0 pytest-benchmark==5.3.1
run() {
    cat >test_loss.py <<EOF
def $1(benchmark):
    benchmark(sum, range($2))
EOF
    shift 2
    env/bin/pytest --quiet "$@" test_loss.py >log 2>&1 && echo passes || echo fails
}
env/bin/pip list 2>/dev/null | grep -E '^pytest(-benchmark)? '
run test_loss 100 --benchmark-save=before >/dev/null
same=$(run test_loss 1000000 --benchmark-compare --benchmark-compare-fail=mean:50%)
renamed=$(run test_loss_mean 1000000 --benchmark-compare --benchmark-compare-fail=mean:50%)
echo "10,000 times the work, same name: $same"
echo "10,000 times the work, renamed:   $renamed"
[ "$same $renamed" = "fails passes" ]
