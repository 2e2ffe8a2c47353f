"""`report.html`: every clip beside its source."""

import re

from kvlock.cli import main


def test_the_report_of_a_run(finished):
    out, _ = finished
    assert main(["bench", "table", str(out), "--report-clips", "1"]) == 0
    page = (out / "report.html").read_text()
    assert (
        page.count("<section>") == 1 and page.count("<video") == 3 + 2 * 3 and "<polyline" in page
    )
    for source in page.split('src="')[1:]:
        assert (out / source.split('"')[0]).is_file()


def test_methods_wrap_beside_their_source_and_curves_have_words(finished):
    """The known clips stand in a column of their own that stays in view."""
    out, _ = finished
    assert main(["bench", "table", str(out), "--report-clips", "2"]) == 0
    page = (out / "report.html").read_text()
    sections = re.findall(r"<section>.*?</section>", page, re.DOTALL)
    assert len(sections) == 2 and "position: sticky" in page
    for section in sections:
        known, methods = section.split('<div class="methods">')
        assert [known.count(f"/{name}.mp4") for name in ("source", "mask", "truth")] == [1, 1, 1]
        assert known.count("<video") == 3 and methods.count("/edited.mp4") == 2 * 3
    legend = page.split("Curves under a clip")[1].split("</p>")[0]
    assert "omega, guidance scale" in legend and "guidance_scale" not in legend
