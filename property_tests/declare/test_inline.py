"""A declaration as one line of text: what is read, what is refused and how, and that it comes back the same."""

from __future__ import annotations

import pytest
import torch

from harness import DeclarationError, TensorSpec, domains, laws
from harness.declare import inline


def test_tensors_are_read_by_name() -> None:
    assert inline.tensors("input1: B D; input2: B D; target: B sign") == {
        "input1": TensorSpec("B D"),
        "input2": TensorSpec("B D"),
        "target": TensorSpec("B", domains.sign()),
    }


@pytest.mark.parametrize(
    ("text", "tensor"),
    [
        ("", TensorSpec("")),
        ("B index(C)", TensorSpec("B", domains.index("C"))),
        ("B index(C, ignore=-100)", TensorSpec("B", domains.index("C", ignore=-100))),
        ("B interval(0,1)", TensorSpec("B", domains.interval(0, 1))),
        ("B interval(-0.5, 2)", TensorSpec("B", domains.interval(-0.5, 2))),
        ("*batch N-1 simplex(-1) float32", TensorSpec("*batch N-1", domains.simplex(-1), torch.float32)),
        ("N N adjacency(symmetric)", TensorSpec("N N", domains.adjacency(symmetric=True))),
        ("N N adjacency(self_loops=False) bool", TensorSpec("N N", domains.adjacency(self_loops=False), torch.bool)),
        ("B boolean(dtype=uint8)", TensorSpec("B", domains.boolean(torch.uint8))),
        ("B boolean(uint8)", TensorSpec("B", domains.boolean(torch.uint8))),
        ("#C real(nan)", TensorSpec("#C", domains.real(nan=True))),
        ("B index('C')", TensorSpec("B", domains.index("C"))),
        ("N D logits float32 jagged(B)", TensorSpec("N D", domains.logits(), torch.float32, jagged="B")),
        ("B+1 offsets(N, empty=False)", TensorSpec("B+1", domains.offsets("N", empty=False))),
    ],
)
def test_a_tensor_is_dims_then_domain_then_dtype(text: str, tensor: TensorSpec) -> None:
    read = inline.tensor(text)
    assert repr(read) == repr(tensor)
    assert repr(inline.tensor(inline.tensor_text(read))) == repr(tensor)


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ("a: B sgin", 6, "did you mean 'sign'?"),
        ("a: B; b: C indx(C)", 12, "did you mean 'index'?"),
        ("a B", 1, "a name, a colon and dims"),
        ("a: B; a: C", 7, "'a' comes twice"),
        ("a: B index", 6, "index(C)"),
        ("a: B simplex", 6, "simplex(-1)"),
        ("a: B sign D", 11, "after the domain"),
        ("a: B sign logits", 11, "second domain"),
        ("a: B float32 sign", 14, "after the dtype"),
        ("a: B interval(1, 0)", 6, "low < high"),
        ("a: B sign(2)", 6, "too many positional arguments"),
        ("a: B (", 6, "'(' is no domain"),
        ("a: B N-", 6, "cannot read 'N-'"),
        ("a: B __import__('os')", 6, "is no domain"),
        ("  ", 1, "no tensor came"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place_and_an_example(text: str, position: int, said: str) -> None:
    with pytest.raises(DeclarationError) as raised:
        inline.tensors(text)
    message = str(raised.value)
    assert said in message
    assert f"at character {position}:" in message
    assert inline.EXAMPLE in message


def test_every_domain_can_be_written_but_a_custom_one() -> None:
    examples = (
        "B index(C)",
        "B interval(0, 1)",
        "B simplex(0)",
        "B unit_norm(0)",
        "N N adjacency",
        "B 4 boxes",
        "B lengths(T)",
    )
    examples += ("B distinct(N)", "B offsets(N)", "B sorted_along(0)", "B log_simplex(0)", "B sparse(coo)")
    plain = (
        set(domains.__all__)
        - {"Domain", "custom"}
        - {text.split()[-1].partition("(")[0] for text in examples}
        - {"interval"}
    )
    for text in (*examples, *(f"B {name}" for name in plain)):
        assert inline.tensor(text).domain == inline.domain(inline.domain_text(inline.tensor(text).domain))


def test_laws_are_read_by_name() -> None:
    assert inline.law("permutation(B)") == laws.permutation("B")
    assert inline.law("symmetric(a, b)") == laws.symmetric("a", "b")
    assert inline.law("nonnegative") == inline.law("nonnegative()") == laws.nonnegative()
    with pytest.raises(DeclarationError, match="did you mean 'permutation'"):
        inline.law("permutatoin(B)")
    with pytest.raises(DeclarationError, match=r"write such as mean_over\(symbol\)"):
        inline.law("mean_over()")
    with pytest.raises(DeclarationError, match="is no law"):
        inline.law("reduces_to(f)")  # it needs a function, which a text cannot give


def test_an_option_is_json_or_a_plain_text() -> None:
    read = inline.options(["reduction=sum", "margin=0.5", "cutoffs=[1, 2]", "swap=true", "full=True", "name=None"])
    assert read == {"reduction": "sum", "margin": 0.5, "cutoffs": [1, 2], "swap": True, "full": True, "name": None}
    for wrong in ("margin", "=1", "a b=1", "margin="):
        with pytest.raises(DeclarationError, match="such as reduction=sum"):
            inline.option(wrong)
    with pytest.raises(DeclarationError, match="comes twice"):
        inline.options(["a=1", "a=2"])


def test_an_option_may_be_an_object_that_is_made_of_constants() -> None:
    name, loss = inline.option("loss_func=torch.nn:CrossEntropyLoss(reduction='none', label_smoothing=0.1)")
    assert (name, loss.reduction, loss.label_smoothing) == ("loss_func", "none", 0.1)
    assert inline.option("device=torch:device('cpu')") == ("device", torch.device("cpu"))
    assert inline.option("note=torch.nn:L1Loss(") == ("note", "torch.nn:L1Loss(")
    with pytest.raises(DeclarationError, match="which raised TypeError"):
        inline.option("loss_func=torch.nn:L1Loss(colour='red')")


def test_an_option_calls_no_function_with_arguments() -> None:
    with pytest.raises(DeclarationError, match=r"expected an nn\.Module or a device where arguments are given"):
        inline.option("path=os.path:join('a', 'b')")
