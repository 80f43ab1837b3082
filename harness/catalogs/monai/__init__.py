"""The losses of MONAI, declared as their documentation says; most stand beside a short form of the documented formula.

Source: https://docs.monai.io/en/stable/losses.html
"""

from __future__ import annotations

from harness.catalogs.monai import images, segmentation

SPECS = segmentation.SPECS + images.SPECS
