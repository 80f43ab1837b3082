"""Let this environment see the packages of another one, and the checkout of a commit: `python share_packages.py VENV [FOLDER]`.

asv makes an environment for the commits that it compares.  A torch in each would take gigabytes, and could differ from
the one that the tests ran with.
"""

import sys
import sysconfig
from pathlib import Path


def main() -> None:
    """Write a .pth file: what the commit holds comes first, and the other environment's packages last."""
    other = Path(sys.argv[1]).resolve()
    own = Path(sysconfig.get_path("purelib"))
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(other), "platbase": str(other)}))
    if not (packages / "torch").is_dir():
        sys.exit(f"no torch in {packages}; install it there, or name the environment that has it in asv.conf.json")
    checkouts = [Path(argument).resolve() for argument in sys.argv[2:]]
    folders = [folder for checkout in checkouts for folder in (checkout / "src", checkout) if folder.is_dir()]
    # With a checkout, the harness itself is one of the packages, and may be installed in place, which a .pth file says.
    shared = f"import site; site.addsitedir({str(packages)!r})" if checkouts else str(packages)
    (own / "shared_packages.pth").write_text("".join(f"{line}\n" for line in (*folders, shared)))


if __name__ == "__main__":
    main()
