"""Let this environment see the packages of another one: `python share_packages.py PATH/TO/.venv`.

asv makes an environment for the commits that it compares.  A torch in each would take gigabytes, and could differ from
the one that the tests ran with.
"""

import sys
import sysconfig
from pathlib import Path


def main() -> None:
    """Write a .pth file that names the other environment's packages; they come after this environment's own."""
    other = Path(sys.argv[1]).resolve()
    own = Path(sysconfig.get_path("purelib"))
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(other), "platbase": str(other)}))
    if not (packages / "torch").is_dir():
        sys.exit(f"no torch in {packages}; `make install` puts it there")
    (own / "shared_packages.pth").write_text(f"{packages}\n")


if __name__ == "__main__":
    main()
