"""`kvlock estimate` as a user meets it: for this machine, for a card by name, for a card by its memory."""

import pytest
import torch

import kvlock.cost.rates
from kvlock.cli import main

TOY = ["estimate", "--model", "shapes", "--size", "96x96", "--frames", "9", "--steps", "4"]


def _rows(capsys):
    """Method: cells of the printed table, and the lines around it."""
    lines = capsys.readouterr().out.splitlines()
    table = [[cell for cell in line.split("  ") if cell.strip()] for line in lines]
    rows = [[cell.strip() for cell in cells] for cells in table[3:] if len(cells) > 5]
    return {cells[0]: cells[1:] for cells in rows}, lines


@pytest.fixture
def not_measured(monkeypatch):
    """Nothing of this machine may be measured for another one."""

    def measured(*arguments):
        raise AssertionError("the machine was measured")

    monkeypatch.setattr(kvlock.cost.rates, "measured_rates", measured)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_card_by_name_needs_no_card(not_measured, capsys):
    assert main([*TOY, "--gpu", "4090"]) == 0
    rows, lines = _rows(capsys)
    assert lines[0] == "shapes, 96x96, 9 frames, bfloat16 on 4090 with 24.0 GB"
    assert rows["plain"][0] == "8" and rows["plain"][3] == "1.00" and rows["plain"][2] != "?"
    assert "estimated from its data sheet" in " ".join(lines)


def test_a_card_by_its_memory_has_no_time(not_measured, capsys):
    assert main([*TOY, "--device-memory", "24GB"]) == 0
    rows, lines = _rows(capsys)
    assert lines[0] == "shapes, 96x96, 9 frames, bfloat16 on cuda with 24.0 GB"
    assert {cells[2] for cells in rows.values()} == {"?"}
    assert float(rows["kv-lock"][3]) > 1 > float(rows["fast"][3])
    assert "No time: the card's speed is not known (name it: --gpu 4090)" in " ".join(lines)


def test_memory_of_this_machine_alone_is_lowered_by_the_option(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main([*TOY, "--device", "cpu", "--device-memory", "20MB"]) == 0
    rows, lines = _rows(capsys)
    assert lines[0] == "shapes, 96x96, 9 frames, float32 on cpu with 0.0 GB"
    assert all("too much" in cells[4] for cells in rows.values())
    assert "measured on it" in " ".join(lines)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (["--size", "96"], "expected WIDTHxHEIGHT"),
        (["--foreground", "0"], "expected a share above 0"),
        (["--frames", "0"], "expected 1 to 1025"),
        (["--gpu", "4091"], "did you mean 4090"),
        (["--device-memory", "much"], "expected an amount such as 24GB"),
        (["--size", "97x96"], "expected sides that divide by"),
    ],
)
def test_wrong_input_is_one_sentence(wrong, sentence, capsys):
    assert main([*TOY, *wrong]) == 2
    said = capsys.readouterr().err
    assert sentence in said and "Traceback" not in said
