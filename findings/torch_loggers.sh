#!/usr/bin/env bash
# Since pytest 9.1 each phase of each test attaches its handlers to every logger that does not propagate, and torch has more than
# forty of them: of an empty test beside torch, log capture takes more time than all the rest, where nothing is logged.
#
# Source: https://github.com/pytest-dev/pytest/pull/14375 ("a downside is that the per-test logging setup becomes a bit slower")
#
# Output:
#     torch 2.13.0: 42 loggers that do not propagate
#     pytest 9.0.2: an empty test attaches 6 handlers
#     pytest 9.2.0: an empty test attaches 258 handlers
#     pytest 9.2.0 -p no:logging: an empty test attaches 0 handlers
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
if [ -n "${PYTHON:-}" ]; then # an interpreter whose torch is to be used
    packages=$("$folder/env/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' >"$packages/torch.pth"
fi
cd "$folder"
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
env/bin/pip install --quiet torch==2.13.0
cat >count.py <<'EOF'
import logging
import sys

import pytest
import torch

attached = 0
attach = logging.Logger.addHandler


def counted(logger, handler):
    global attached
    attached += 1
    attach(logger, handler)


class Count:
    def pytest_runtest_logstart(self):
        global attached
        attached = 0
        logging.Logger.addHandler = counted

    def pytest_runtest_logfinish(self):
        logging.Logger.addHandler = attach


more = sys.argv[1:]
assert pytest.main(["-q", "-p", "no:cacheprovider", "--no-header", "--no-summary", *more, "test_empty.py"], [Count()]) == 0
own = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger) and not each.propagate]
print(f"torch {torch.__version__.split('+')[0]}: {len(own)} loggers that do not propagate")
print(f"pytest {' '.join([pytest.__version__, *more])}: an empty test attaches {attached} handlers")
EOF
printf 'def test_empty():\n    pass\n' >test_empty.py
env/bin/pip install --quiet pytest==9.0.2
env/bin/python count.py | tail -n 2 | tee told
env/bin/pip install --quiet pytest==9.2.0
env/bin/python count.py | tail -n 1 | tee -a told
env/bin/python count.py -p no:logging | tail -n 1 | tee -a told
diff told - <<'EOF'
torch 2.13.0: 42 loggers that do not propagate
pytest 9.0.2: an empty test attaches 6 handlers
pytest 9.2.0: an empty test attaches 258 handlers
pytest 9.2.0 -p no:logging: an empty test attaches 0 handlers
EOF
