#!/usr/bin/env bash
# PyKEEN collects all subclasses of torch's schedulers when it is imported, and refuses two of one name. MONAI has schedulers that
# are called as torch's are. Each can be imported alone, and PyKEEN before MONAI; after MONAI's losses PyKEEN's raise.
#
# Source: https://github.com/cthoyt/class-resolver/issues/29, of another package and closed
#
# Output:
#     class-resolver 0.8.2
#     monai          1.6.1
#     pykeen         1.11.1
#     torch          2.13.0+cpu
#     pykeen, then monai: both are imported
#     monai, then pykeen: RegistrationNameConflict
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
if [ -n "${PYTHON:-}" ]; then # an interpreter whose torch is to be used
    packages=$("$folder/env/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$PYTHON" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' >"$packages/torch.pth"
fi
cd "$folder"
env/bin/pip install --quiet torch==2.13.0 monai==1.6.1 pykeen==1.11.1 class-resolver==0.8.2 dataclasses-json==0.6.7 2>/dev/null
cat >both.py <<'EOF'
import importlib
import sys
import warnings

warnings.simplefilter("ignore")
try:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    print("both are imported")
except Exception as error:
    print(type(error).__name__)
EOF
env/bin/pip list 2>/dev/null | grep -E '^(class-resolver|monai|pykeen|torch) '
after=$(env/bin/python both.py pykeen.losses monai.losses 2>/dev/null)
before=$(env/bin/python both.py monai.losses pykeen.losses 2>/dev/null)
echo "pykeen, then monai: $after"
echo "monai, then pykeen: $before"
[ "$after, $before" = "both are imported, RegistrationNameConflict" ]
