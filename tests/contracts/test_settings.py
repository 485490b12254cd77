"""The contract of the settings of every part."""

import json
import pickle
from dataclasses import FrozenInstanceError, fields

import pytest

from raysk.errors import ConfigError


def test_settings_survive_json(part):
    text = json.dumps(part.to_plain(), allow_nan=False)
    rebuilt = type(part).from_plain(json.loads(text))
    assert rebuilt == part
    assert json.dumps(rebuilt.to_plain()) == text


def test_settings_survive_pickle(part):
    rebuilt = pickle.loads(pickle.dumps(part))
    assert rebuilt == part
    assert hash(rebuilt) == hash(part)


def test_settings_cannot_be_changed(part):
    for field in fields(part):
        with pytest.raises(FrozenInstanceError):
            setattr(part, field.name, getattr(part, field.name))


def test_a_wrong_value_is_refused_by_the_name_of_its_field(slip):
    member, field, value = slip
    with pytest.raises(ConfigError, match=f"^{field} must be") as caught:
        member(**{field: value})
    assert "\n" not in str(caught.value)


def test_an_unknown_field_is_refused_by_its_name(part):
    with pytest.raises(ConfigError, match=r"^no_such_setting must be a known setting"):
        type(part).from_plain({"no_such_setting": 1})
