"""The picture of a pretraining log."""

from xml.etree import ElementTree

from lowrank.train.pretrain.plot import BOTTOM, TOP, draw

ROWS = [{"tokens": 1e6 * i, "document_loss": 4.0 / i, "digits_right": i / 4} for i in range(1, 5)]


def test_every_row_is_a_mark_in_each_panel_and_the_highest_is_at_the_top() -> None:
    svg = ElementTree.fromstring(draw(ROWS))
    loss, digits = svg.findall("{*}g")
    heights = [[float(mark.get("cy")) for mark in panel.findall("{*}circle")] for panel in (loss, digits)]
    assert [len(marks) for marks in heights] == [4, 4]
    assert TOP <= heights[0][0] < BOTTOM and heights[0] == sorted(heights[0])
    assert heights[1][-1] == TOP and heights[1] == sorted(heights[1], reverse=True)
    assert heights[1][0] == BOTTOM - (BOTTOM - TOP) / 4


def test_one_row_is_a_picture_too() -> None:
    assert ElementTree.fromstring(draw(ROWS[:1])).tag.endswith("svg")
