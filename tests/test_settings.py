from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from raysk.artifacts import digest_of
from raysk.errors import ConfigError
from raysk.registry import Registry
from raysk.settings import Between, Settings

colours = Registry[str]("colour")
colours.register("red")("#f00")
colours.register("green")("#0f0")


@dataclass(frozen=True, kw_only=True)
class Paint(Settings):
    thickness: Annotated[float, Between(0.0, 2.0, open_low=True)] = 1.0
    coats: Annotated[int, Between(1, 9)] = 1
    colour: Annotated[str, colours] = "red"
    finish: Literal["matt", "gloss"] = "matt"
    dry: bool = True
    mesh: Literal[40, 80] = 80


def test_a_whole_number_in_a_float_field_becomes_a_float():
    assert isinstance(Paint(thickness=2).thickness, float)
    assert digest_of(vars(Paint(thickness=2))) == digest_of(vars(Paint(thickness=2.0)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"thickness": 0}, r"^thickness must be a number in \(0, 2\], but got 0: "),
        ({"thickness": 2.1}, "^thickness must be a number"),
        ({"thickness": float("nan")}, "^thickness must be a number"),
        ({"thickness": "1"}, "^thickness must be a number"),
        ({"coats": 1.0}, r"^coats must be a whole number in \[1, 9\], but got 1.0"),
        ({"coats": True}, "^coats must be a whole number"),
        ({"colour": "rod"}, "^colour must be a known name, but got 'rod'; did you mean red"),
        ({"colour": None}, "^colour must be a known name"),
        ({"finish": "glos"}, "^finish .* did you mean gloss"),
        ({"finish": ["matt"]}, "^finish must be"),
        ({"mesh": 60}, "^mesh must be one of 40, 80, but got 60: choose one"),
        ({"mesh": 40.0}, "^mesh must be one of 40, 80, but got 40.0"),
        ({"mesh": "40"}, "^mesh must be one of 40, 80, but got '40'"),
        ({"dry": 1}, "^dry must be true or false, but got 1"),
        ({"thicknes": 1}, "^thicknes must be .* did you mean thickness?"),
        ({"x": 1}, "^x must be .* known here: thickness, coats, colour, finish, dry, mesh"),
    ],
)
def test_an_invalid_setting_is_named_with_its_rule(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Paint.from_plain(values)
    assert "\n" not in str(caught.value)


def test_a_range_includes_its_ends_unless_open():
    assert Paint(thickness=2.0, coats=9) == Paint.from_plain({"thickness": 2.0, "coats": 9})


@dataclass(frozen=True, kw_only=True)
class Wall(Settings):
    paint: Paint = field(default_factory=lambda: Paint(coats=3))
    cover: Paint | None = field(default_factory=Paint)
    height: Annotated[float, Between(0, 9)] = 2.5


def test_choices_are_the_values_that_differ_from_the_defaults():
    assert Wall().choices() == {}
    assert Wall(paint=Paint(coats=3, thickness=1.5), height=3).choices() == {"paint": {"thickness": 1.5}, "height": 3.0}
    assert Wall(paint=Paint(), cover=None).choices() == {"paint": {"coats": Paint().coats}, "cover": None}
