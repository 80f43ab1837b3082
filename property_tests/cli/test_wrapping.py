from harness.cli.terminal.wrapping import wrapped


def test_a_line_is_broken_between_words_and_indented_more():
    assert wrapped("  loss = 1.25, expected 3.75", 20) == "  loss = 1.25,\n    expected 3.75"


def test_the_last_cell_keeps_its_column_where_there_is_room():
    assert (
        wrapped("  naive  adopt  it is fast and right", 28) == "  naive  adopt  it is fast\n                and right"
    )


def test_a_style_has_no_width():
    assert wrapped("\x1b[31mone\x1b[0m two", 7) == "\x1b[31mone\x1b[0m two"
    assert wrapped("\x1b[31mone\x1b[0m two", 6) == "\x1b[31mone\x1b[0m\n  two"


def test_what_is_copied_or_a_table_keeps_its_lines():
    for line in ("  repeat: loss-harness replay a/b.json", "    x = torch.ones(2, 3)", "loss  device  planned  passed"):
        assert wrapped(line, 10) == line


def test_a_word_is_never_cut():
    assert wrapped("a 0.12345678901234567 b", 8) == "a\n  0.12345678901234567\n  b"


def test_what_fits_is_as_it_was():
    text = "one\n\n  two  three\n"
    assert wrapped(text, 80) == text
