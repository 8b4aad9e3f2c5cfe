"""Series out of CSV: what is read, what is refused and where, and which times come next."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from unrolled.core.errors import ConfigurationError, DataError
from unrolled.data.series import SeriesFile, SeriesForm, read_series, series_of_lines
from unrolled.data.time_axis import TimeAxis, counted, read_times


def read(text: str, **form: object) -> SeriesFile:
    return series_of_lines(text.splitlines(keepends=True), SeriesForm(**form), name="f.csv")  # type: ignore[arg-type]


def axis(*texts: str) -> TimeAxis:
    found = read_times(texts)
    assert isinstance(found, TimeAxis)
    return found


def test_every_column_that_is_not_named_is_forecast() -> None:
    found = read("\ufeffrownames,date,a,b\r\n1,2020-01-01,1,2.5\r\n2,2020-01-02,,-3e1\r\n\r\n3,2020-01-03,NA,4\r\n")
    assert (found.targets, found.known, found.time, found.findings) == (("a", "b"), (), "date", ())
    (one,) = found.series
    np.testing.assert_array_equal(one.values, [[1, 2.5], [np.nan, -30], [np.nan, 4]])
    assert one.known.shape == (3, 0)
    assert one.axis.texts == ("2020-01-01", "2020-01-02", "2020-01-03")
    part = one.select(1, 3)
    assert part.axis.texts == one.axis.texts[1:]
    np.testing.assert_array_equal(part.values, one.values[1:])


def test_several_series_with_known_inputs() -> None:
    text = "shop;when;price;sold;note\nA;1;9.5;3;x\nB;1;8;30;y\nA;2;9;4;x\nB;2;7;;y\nB;3;7;33;\n"
    found = read(text, time="when", known=("price",), series="shop", targets=("sold",), delimiter=";")
    first, second = found.series
    assert (first.name, second.name) == ("A", "B")
    np.testing.assert_array_equal(first.values, [[3], [4]])
    np.testing.assert_array_equal(second.values, [[30], [np.nan], [33]])
    np.testing.assert_array_equal(second.known, [[8], [7], [7]])
    assert second.axis.numbers.tolist() == [1, 2, 3]


def test_a_column_of_times_has_a_usual_name_and_one_use() -> None:
    text = "month,date,x\n1,2020-01-01,5\n1,2020-01-02,6\n"
    assert read(text).time == "date"
    assert read(text).targets == ("month", "x")
    assert read(text, targets=("x",)).targets == ("x",)
    assert read("month,x\n1,5\n2,6\n", known=("month",)).time is None
    assert read("x\n5\n6\n").series[0].axis.texts == ("0", "1")
    assert read("x,y\n5,1\n6,2\n", targets=("y", "x")).targets == ("y", "x")


def test_an_empty_line_of_one_column_is_a_missing_value() -> None:
    np.testing.assert_array_equal(read("x\n1\n\n3\n\n").series[0].values, [[1], [np.nan], [3]])
    assert read("x,y\n1,2\n\n3,4\n").series[0].values.tolist() == [[1, 2], [3, 4]]


def test_files_may_be_packed(tmp_path: Path) -> None:
    (tmp_path / "f.csv.gz").write_bytes(gzip.compress(b"x\n1\n2\n"))
    assert read_series(tmp_path / "f.csv.gz").series[0].values.tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x,y\n1,2\n3,four\n", "got `four` in `f.csv`, line 3, column `y`"),
        ("x,y\n1,inf\n", "must be finite, got `inf` in `f.csv`, line 2, column `y`"),
        ("time,x\n1,5\n3,5\n2,5\n", "times must rise, but `2` in `f.csv`, line 4 is before the one above it"),
        ("date,x\n2020-01-02,5\n2020-01-02,6\n", "times must differ, but `2020-01-02` in `f.csv`, line 3 stands twice"),
        ("date,x\n2020-01-02,5\nsoon,6\n", "`date` must hold times (2016-07-01 13:00) or numbers, got `soon` in `f.csv`, line 3"),
        ("date,x\n2020-01-02,5\n2020-02-30,6\n", "got `2020-02-30` in `f.csv`, line 3"),
        ("x,y\n1,\n2,NA\n", "every column must hold at least one number, but `y` in `f.csv` has none"),
        ("x,y\n1,2\n3\n", "every row must have 2 columns, as the first line has, got 1 in `f.csv`, line 3"),
        ("x,y\n1,2\n3,4,5\n", "got 3 in `f.csv`, line 3"),
        ("x,y\n", "must hold at least one row of numbers"),
        ("", "must begin with the names of its columns"),
        ("x,x\n1,2\n", "`x` stands twice in its first line"),
        ("date\n2020-01-01\n", "must have a column to forecast, got `date`"),
        ('x\n"1\n', "must be whole, but the one in `f.csv`, line 2, is not"),
    ],
)
def test_bad_files_are_refused_with_their_place(text: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        read(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"targets": ("z",)}, "`data.targets` must name columns of `f.csv`, got `z`"),
        ({"time": "whn"}, "did you mean `when`?"),
        ({"series": "shop", "known": ("shop",)}, "`shop` is for two"),
        ({"targets": ("x", "x")}, "`x` is for two"),
        ({"delimiter": ";;"}, "must be one character"),
    ],
)
def test_columns_that_cannot_be_are_refused(form: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read("when,shop,x\n1,1,1\n", **form)
    assert said in str(caught.value)


def test_what_several_series_must_have() -> None:
    with pytest.raises(DataError, match=r"times of the series `B` must rise, but `1` in `f.csv`, line 4 is before"):
        read("time,of,x\n3,A,1\n2,B,1\n1,B,2\n", series="of")
    with pytest.raises(DataError, match=r"every row must name its series, but `of` is empty in `f.csv`, line 3"):
        read("time,of,x\n3,A,1\n2,,1\n", series="of")
    with pytest.raises(DataError, match=r"`x` of `B` in `f.csv` has none"):
        read("of,x\nA,1\nB,\n", series="of")
    with pytest.raises(DataError, match=r"known in advance must be there in every row, but `p` is empty in `f.csv`, line 3"):
        read("p,x\n1,1\n,2\n", known=("p",))


def test_what_a_person_should_know_is_told() -> None:
    assert read("x\n1\n").findings == ()  # one point: too short to train on, which the windows say
    assert read("x,y\n1,7\n2,7\n").findings == ("`y` in `f.csv` never changes: there is nothing to learn from it",)
    (said,) = read("date,x\n2020-01-01,1\n2020-01-02,2\n2020-01-05,3\n2020-01-06,4\n").findings
    assert "leave gaps, the widest behind `2020-01-02`" in said
    (said,) = read("date,x\n2020-01,1\n2020-02,2\n2020-04,3\n2020-05,4\n").findings
    assert "leave gaps, the widest behind `2020-02`" in said
    assert read("date,x\n2020-01,1\n2020-02,2\n2020-03,3\n2020-04,4\n").findings == ()


@pytest.mark.parametrize(
    ("texts", "season", "coming"),
    [
        (("2016-07-01 22:00:00", "2016-07-01 23:00:00"), 24, ("2016-07-02 00:00:00", "2016-07-02 01:00:00")),
        (("2016-07-01T22:15", "2016-07-01T22:30"), 96, ("2016-07-01T22:45", "2016-07-01T23:00")),
        (("2016-07-01T23:00Z", "2016-07-01T23:30Z"), 48, ("2016-07-02T00:00Z", "2016-07-02T00:30Z")),
        (("2016-07-01 01:00+02:00", "2016-07-01 02:00+02:00"), 24, ("2016-07-01 01:00+00:00", "2016-07-01 02:00+00:00")),
        (("2020-02-27", "2020-02-28"), 7, ("2020-02-29", "2020-03-01")),
        (("2020/02/27", "2020/02/28"), 7, ("2020-02-29", "2020-03-01")),
        (("2020-02-14", "2020-02-21"), 52, ("2020-02-28", "2020-03-06")),
        (("2019-11", "2019-12"), 12, ("2020-01", "2020-02")),
        (("2019-07-01", "2019-10-01"), 4, ("2020-01-01", "2020-04-01")),
        (("2019-11-30", "2019-12-31"), 12, ("2020-01-31", "2020-02-29")),
        (("2019-12-31", "2020-01-31"), 12, ("2020-02-29", "2020-03-31")),
        (("1949.75", "1949.8333333"), 12, ("1949.916667", "1950")),
        (("1960.5", "1960.75"), 4, ("1961", "1961.25")),
        (("1871", "1872"), 1, ("1873", "1874")),
        (("1969-12-31 23:59:59.5", "1970-01-01 00:00:00"), 1, ("1970-01-01 00:00:00.500000", "1970-01-01 00:00:01")),
    ],
)
def test_the_step_of_times_tells_the_season_and_what_comes_next(texts: tuple[str, ...], season: int, coming: tuple[str, ...]) -> None:
    found = axis(*texts)
    assert found.step().season == season
    after = found.after(2)
    if "." in coming[0] and not found.dated:
        assert [float(text) for text in after.texts] == pytest.approx([float(text) for text in coming], abs=1e-5)
    else:
        assert after.texts == coming
    again = axis(*texts, *after.texts)
    np.testing.assert_allclose(again.numbers[-2:], after.numbers, atol=1e-5)


def test_one_point_has_a_step_of_one() -> None:
    assert axis("5").after(1).texts == ("6",)
    assert counted(3).after(2).texts == ("3", "4")
    assert counted(1).step().season == 1


@pytest.mark.parametrize(
    ("times", "coming"),
    [
        (("2020-01-01", "2020-01-08", "2020-01-15"), "2020-01-22"),
        (("2020-01", "2020-04", "2020-07"), "2020-10"),
        (("2020-01-31", "2020-02-29"), "2020-03-31"),
        (("2000.25", "2000.5"), "2000.75"),
    ],
)
def test_a_single_time_takes_the_usual_step(times: tuple[str, ...], coming: str) -> None:
    whole = axis(*times)
    assert whole.select(len(times) - 1, len(times)).after(1, whole.step()).texts == (coming,)


def test_a_single_time_of_a_calendar_tells_no_step() -> None:
    with pytest.raises(DataError, match="needs at least 2 of them, got `2020-01-01` alone"):
        axis("2020-01-01").after(1)
    assert axis("2020-01-01").after(0).texts == ()
    with pytest.raises(DataError, match="alone"):
        axis("2020-01-01").after(1, axis("5", "6").step())


def test_features_say_where_in_day_week_and_year_a_point_lies() -> None:
    found = axis("2024-01-01 00:00", "2024-01-01 06:00", "2024-01-08 00:00").features()  # two Mondays
    sine, cosine = found[:, :3], found[:, 3:]
    np.testing.assert_allclose(sine**2 + cosine**2, 1)
    np.testing.assert_allclose([sine[0, 0], cosine[0, 0]], [0, 1], atol=1e-9)  # midnight
    np.testing.assert_allclose([sine[1, 0], cosine[1, 0]], [1, 0], atol=1e-9)  # six o'clock
    np.testing.assert_allclose([sine[2, :2], cosine[2, :2]], [sine[0, :2], cosine[0, :2]], atol=1e-9)  # the same hour of the week
    np.testing.assert_allclose([sine[0, 1], cosine[0, 1]], [0, 1], atol=1e-9)  # a week begins on Monday
    assert counted(4).features().shape == (4, 0)
