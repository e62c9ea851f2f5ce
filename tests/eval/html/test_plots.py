"""The plots: what is drawn is where the numbers say, and each says it in words as well."""

import re

import pytest

from lowrank.eval.html.plots import Line, bars, figure, heat_map, histogram, line_plot, loss_curve, running_mean


def rectangles(drawing, kind):
    found = re.findall(rf'<rect class="{kind}" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', drawing)
    return [tuple(map(float, rectangle)) for rectangle in found]


def test_lines_pass_through_their_points():
    drawn = line_plot([Line("a", [(0, 0.0), (1, 2.0), (2, 1.0)], "strong")], "t", "x", "y")
    path = re.search(r'class="line strong" d="M([^"]+)h0"', drawn)[1]
    (x0, bottom), (x1, top), (x2, middle) = (tuple(map(float, place.split())) for place in path.split("L"))
    assert x1 - x0 == pytest.approx(x2 - x1) and middle == pytest.approx((top + bottom) / 2)


def test_a_logarithmic_plot_leaves_out_what_is_zero():
    drawn = line_plot([Line("a", [(1, 1.0), (2, 0.1), (3, 0.0)])], "t", "x", "y", log_y=True)
    assert re.search(r'd="M([^"]+)h0"', drawn)[1].count("L") == 1
    assert line_plot([Line("a", [(1, 0.0)])], "t", "x", "y", log_y=True) == ""


def test_a_logarithmic_axis_of_rates_has_powers_of_ten_and_the_ends_that_are_asked_for():
    points = [(1e-3, 1.0), (1e-2, 0.5), (1e-1, 1.0)]
    path = re.search(r'class="line [^"]*" d="([^"]+)"', line_plot([Line("a", points)], "t", "x", "y", log_x=True))
    xs = [float(point.split()[0]) for point in path[1].removeprefix("M").removesuffix("h0").split("L")]
    assert xs == [64.0, 344.0, 624.0], "equal factors are equal steps, from end to end"
    wider = line_plot([Line("a", points)], "t", "x", "y", log_x=True, x_ends=(1e-4, 1.0))
    assert [f">{rate:g}</text>" in wider for rate in (1e-4, 1e-3, 1e-2, 1e-1, 1)] == [True] * 5
    assert figure("", "caption") == ""


def test_dots_are_not_joined():
    drawn = line_plot([Line("a", [(0, 1.0), (1, 2.0)], "dots")], "t", "x", "y")
    assert re.search(r'class="line dots" d="M[^"L]+h0M[^"L]+h0"', drawn)


def test_bars_of_a_histogram_are_as_high_as_their_shares_and_touch():
    first, second = rectangles(histogram([0, 1, 2], [0.5, 0.25], "t", "x", "y"), "bar")
    assert first[3] == pytest.approx(2 * second[3], abs=0.2)
    assert first[0] + first[2] == pytest.approx(second[0], abs=1.1)


def test_marks_stand_under_their_value():
    drawn = histogram([-1, 0, 1], [1, 1], "t", "x", "y", marks={"levels": ([-1, 0, 1], "strong")})
    places = [float(x) for x in re.findall(r'class="mark strong" d="M([\d.]+) ', drawn)]
    assert places[1] == pytest.approx((places[0] + places[2]) / 2)
    assert ">levels<" in drawn


def test_upright_bars_say_their_values():
    drawn = bars(["a", "b"], [1.0, 4.0], "t", "y", line=Line("half", [(0, 2.0), (1, 2.0)], "dashed"))
    low, high = rectangles(drawn, "bar strong")
    assert high[3] == pytest.approx(4 * low[3], abs=0.2)
    assert "<desc>a: 1; b: 4</desc>" in drawn and ">half<" in drawn


def test_a_heat_map_is_darkest_where_the_value_is_largest_and_leaves_gaps():
    drawn = heat_map(["r"], ["a", "b", "c"], [[1.0, None, 3.0]], "t")
    pale, dark = (float(shade) for shade in re.findall(r'fill-opacity="([\d.]+)"', drawn))
    assert pale < dark and drawn.count('class="heat"') == 2
    assert heat_map(["r"], ["a"], [[None]], "t") == ""


def test_values_on_both_sides_of_zero_have_two_colours():
    drawn = heat_map(["r"], ["a", "b", "c", "d"], [[-2.0, -1.0, 1.0, 2.0]], "t")
    cells = re.findall(r'class="(heat[ a-z]*)".*?fill-opacity="([\d.]+)"', drawn)
    assert [kind for kind, _ in cells] == ["heat below", "heat below", "heat", "heat"]
    assert cells[0][1] == cells[3][1] > cells[1][1] == cells[2][1]
    assert "from -2.00 to 2.00" in drawn


def test_plots_that_are_read_beside_each_other_have_one_axis():
    small, large = [(1, 1.0), (2, 2.0)], [(1, 1.0), (2, 50.0)]
    beside = [y for _, y in (*small, *large)]
    drawn = [line_plot([Line("a", points)], "t", "x", "y", beside=beside) for points in (small, large)]
    ticks = [re.findall(r'<text class="end"[^>]*>([^<]*)</text>', one) for one in drawn]
    assert ticks[0] == ticks[1]


def test_rings_can_be_told_from_dots():
    drawn = line_plot([Line("a", [(0, 1.0), (1, 2.0)], "rings")], "t", "x", "y")
    assert drawn.count("a4 4 0 1 0 8 0") == 3  # two points, and the legend's


def test_cells_that_read_the_same_look_the_same():
    drawn = heat_map(["r"], ["a", "b"], [[1.0, 1.0 + 1e-12]], "t")
    assert len(set(re.findall(r'fill-opacity="([\d.]+)"', drawn))) == 1


def test_a_heat_map_of_many_columns_shows_its_numbers_when_pointed_at():
    drawn = heat_map(["r"], list("abcdefghijklmnop"), [[float(n) for n in range(16)]], "t", ".0f")
    assert 'class="cell' not in drawn and "<title>r, p: 15</title>" in drawn


def test_names_cannot_be_markup():
    drawn = heat_map(["<b>"], ["&"], [[1.0]], "<i>") + bars(["<u>"], [1.0], "t", "y")
    assert not re.search("<[biu]>", drawn)


def test_running_mean_is_centred_and_shorter_at_the_ends() -> None:
    assert running_mean([1.0, 2.0, 6.0, 4.0], reach=1) == [1.5, 3.0, 4.0, 5.0]


def test_a_curve_puts_a_point_where_its_loss_is() -> None:
    drawn = loss_curve([(1, 4.0), (2, 0.0), (3, 2.0)], reach=1, title="loss", description="d")
    path = re.search(r'class="dots" d="([^"]+)"', drawn)
    assert path is not None
    points = [tuple(map(float, point)) for point in re.findall(r"M([\d.]+) ([\d.]+)h0", path[1])]
    (left, top), (middle, bottom), (right, half) = points
    assert middle - left == pytest.approx(right - middle, abs=0.2)
    assert half == pytest.approx((top + bottom) / 2, abs=0.2)
    rules = [tuple(map(float, rule)) for rule in re.findall(r'd="M([\d.]+) ([\d.]+)H([\d.]+)"', drawn)]
    assert rules[0] == (left, bottom, right) and rules[-1] == (left, top, right)  # the axes for 0 and for 4


def test_a_curve_of_one_step_and_of_zeros_can_be_drawn() -> None:
    assert "nan" not in loss_curve([(7, 0.0)], reach=1, title="loss", description="d")
