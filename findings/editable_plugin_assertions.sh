#!/usr/bin/env bash
# A pytest plugin that hatchling installs in place with `dev-mode-exact` loses pytest's explanation of its assertions, and a
# warning names a module that nobody wrote. Installed as a wheel the same plugin says what differed.
#
# Source: https://github.com/pytest-dev/pytest/issues/11783, https://github.com/pytest-dev/pytest/issues/10230
#
# Output:
#     hatchling         1.33.0
#     pytest            9.2.0
#     pip install  . : lines that explain the assertion 1, warnings 0
#     pip install --editable . : lines that explain the assertion 0, warnings 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
cd "$folder"
env/bin/pip install --quiet pytest==9.2.0 hatchling==1.33.0 editables==0.6
mkdir -p src/plug
cat >pyproject.toml <<'EOF'
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "plug"
version = "1"
[project.entry-points.pytest11]
plug = "plug"
[tool.hatch.build]
dev-mode-exact = true
[tool.hatch.build.targets.wheel]
packages = ["src/plug"]
EOF
cat >src/plug/__init__.py <<'EOF'
def check(left, right):
    assert left == right
EOF
cat >test_plug.py <<'EOF'
import plug


def test_plug():
    plug.check([1], [2])
EOF
env/bin/pip list 2>/dev/null | grep -E '^(pytest|hatchling) '
seen=""
for how in "" "--editable"; do
    # shellcheck disable=SC2086
    env/bin/pip install --quiet --no-build-isolation --force-reinstall --no-deps $how .
    env/bin/pytest test_plug.py >log || true
    explained=$(grep -c "assert \[1\] == \[2\]" log || true)
    warned=$(grep -c "cannot be rewritten; _editable_impl_plug" log || true)
    echo "pip install $how . : lines that explain the assertion $((explained > 0)), warnings $warned"
    seen="$seen$((explained > 0))$warned "
done
[ "$seen" = "10 01 " ]
