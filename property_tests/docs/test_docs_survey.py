"""The survey shows what torch does: the code beside each of its findings gives what the comments say.

The findings in other packages are of versions that `make survey` installs in an environment of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from property_tests.helpers.documents.blocks import blocks
from property_tests.helpers.documents.comments import differences
from property_tests.tools.survey.__main__ import _status, shown
from property_tests.tools.survey.findings import sections

SURVEY = Path(__file__).parents[2] / "docs" / "survey.md"


@pytest.mark.filterwarnings("ignore")  # torch warns of some of what is shown
def test_the_code_beside_each_finding_in_torch_gives_what_its_comments_say() -> None:
    following = SURVEY.read_text(encoding="utf-8").partition("\n## geomloss\n")[0].count("\n")
    shown = [block for block in blocks(SURVEY) if block.language == "python" and block.line <= following]
    assert len(shown) > 10
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        wrong = {block.line: differences(block.text, names) for block in shown}
    assert {line: found for line, found in wrong.items() if found} == {}


@pytest.mark.parametrize(
    ("code", "is_right"),
    [
        ("1 / 3  # 0.333", True),
        ("1 / 3  # 0.334", False),
        ("1.0, float('nan')  # 1 and nan", True),
        ("1.0, 2.0  # 1", False),
        ("1.0  # 1 and 2", False),
        ("1 / 0  # ZeroDivisionError: as in arithmetic", True),
        ("1 / 1  # ZeroDivisionError", False),
        ("1 / 0  # 0", False),
        ("for n in (1, 1, 2):\n    n  # 1, 2", True),
        ("for n in (1, 1, 2):\n    n  # 1", False),
        ("print('a label', 1 / 4)  # 0.25 in float32", True),
        ("print(1 / 4)  # 0.26", False),
        ("exit()  # nothing that could be compared", True),
    ],
)
def test_a_comment_that_says_something_else_is_found(code: str, is_right: bool) -> None:
    assert (differences(code, {}) == {}) is is_right


PAGE = """# Survey

## A package

3 specs (torch 2.13, numpy 2.4.6 at its side): some.

### Wrong

**The sum is another one** (`nn.Sum-weighted`, E01, G02). Why it is. Known: a-package#12.

```python
1 + 1  # 2
```

**A mean** where nothing is left (`nn.Mean`, D03). It is so.

### Other code

```python
loss = abs(-3)
print("it is", loss)  # 4
```

- **`pkg.abs`, `other`** (C01, a warning): One sentence. Another.
- **`absent`** (read off its formula): No code.
"""


def test_the_findings_of_a_page_are_read_with_the_code_that_shows_each(tmp_path: Path) -> None:
    page = tmp_path / "survey.md"
    page.write_text(PAGE, encoding="utf-8")
    (section,) = sections(page)
    assert section.versions == ("torch 2.13", "numpy 2.4.6")
    read = [(f.losses, f.fact, f.rules, f.severity, f.known) for f in section.findings]
    assert read == [
        (("nn.Sum-weighted",), "The sum is another one", ("E01", "G02"), "error", ("a-package#12",)),
        (("nn.Mean",), "A mean", ("D03",), "warning", ()),
        (("pkg.abs", "other"), "One sentence.", ("C01",), "warning", ()),
        (("absent",), "No code.", (), "note", ()),
    ]
    given = shown(section)
    assert [_status(f, given) for f in section.findings] == [
        *("yes", "no code"),
        "changed: line 2 says '# 4', but gives [3]",
        "no code",
    ]
