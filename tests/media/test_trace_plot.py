"""The plot of a trace: its axes say the same whatever the values are."""

import pytest
from PIL import Image

from kvlock.contract.types import StepRecord
from kvlock.media.trace_plot import plot_trace, trace_figure


def trace(variances, alpha=0.5, omega=5.0, scale=0.9) -> list[StepRecord]:
    return [StepRecord(i, 1 - i / 9, v, alpha, omega, scale) for i, v in enumerate(variances)]


def axes_of(figure) -> dict:
    return {axes.get_title(loc="left").split(":")[0]: axes for axes in figure.axes}


@pytest.mark.parametrize("variances", [(0.1, 0.02, 0.004), (None, 0.02, None), (None, None, None)])
def test_a_trace_is_written_the_same_twice(tmp_path, variances):
    for name in "ab":
        plot_trace(trace(variances), 0.01, tmp_path / f"{name}.png", first_lock_step=1)
    with Image.open(tmp_path / "a.png") as image:
        image.load()
        assert image.format == "PNG" and image.width > 400 and image.height > 300
        assert "Software" not in image.info
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_what_is_not_in_use_is_not_plotted():
    plotted = [trace([None] * 2, scale=None), trace([None, 0.1], scale=None), trace([None, 0.1])]
    names = [list(axes_of(trace_figure(records, 0.01))) for records in plotted]
    assert names[0] == ["alpha", "omega"]
    assert names[1] == ["variance inside the mask", "alpha", "omega"]
    assert names[2] == ["variance inside the mask", "alpha", "omega", "s*"]


@pytest.mark.parametrize("alpha", [0.0, 0.9997, 1.0])
@pytest.mark.parametrize("omega, clamp, top", [(5.0, 10.0, 10), (1.0, None, 1), (7.5, None, 7.5)])
def test_the_axes_do_not_follow_small_changes(alpha, omega, clamp, top):
    axes = axes_of(trace_figure(trace([0.1], alpha, omega), None, guidance_clamp=clamp))
    for name, highest in (("alpha", 1), ("omega", top), ("s*", 1)):
        low, high = axes[name].get_ylim()
        assert -0.1 * highest < low <= 0 and highest <= high < 1.1 * highest
    axes = axes_of(trace_figure(trace([0.1], alpha, omega, 1.4), None, guidance_clamp=clamp))
    assert axes["s*"].get_ylim()[1] > 1.4  # and nothing is cut off


@pytest.mark.parametrize(
    "variances, threshold, low, high",
    [
        ([0.03, 0.02], None, 0.01, 0.1),
        ([0.03, 0.02], 0.5, 0.01, 1),
        ([0.03, None, 0.0004], 0.01, 1e-4, 0.1),
        ([0.0, 0.02], 0.01, 0.01, 0.1),
        ([0.01], 0.01, 0.01, 0.1),
    ],
)
def test_the_variance_has_whole_powers_of_ten(variances, threshold, low, high):
    axes = axes_of(trace_figure(trace(variances), threshold))["variance inside the mask"]
    assert axes.get_yscale() == "log" and axes.get_ylim() == pytest.approx((low, high))
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ([] if threshold is None else [f"threshold {threshold:g}"])


@pytest.mark.parametrize("first, shaded", [(None, 0), (0, 3), (2, 3), (9, 0)])
def test_the_lock_steps_are_shaded_in_every_panel(first, shaded):
    figure = trace_figure(trace([0.1] * 5, scale=None), 0.01, first_lock_step=first)
    spans = [patch for axes in figure.axes for patch in axes.patches]
    assert len(spans) == shaded
    assert all(span.get_x() == first - 0.5 for span in spans)
    assert figure.axes[-1].get_xlim() == (-0.5, 4.5)
