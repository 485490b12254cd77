import pytest

from raysk.errors import ConfigError
from raysk.registry import Registry, unknown_name


@pytest.fixture
def registry() -> Registry[int]:
    registry = Registry[int]("loss")
    registry.register("supcon")(1)
    registry.register("focal")(2)
    return registry


def test_a_member_has_a_name_and_a_name_its_member(registry):
    assert registry["focal"] == 2
    assert registry.name_of(1) == "supcon"
    assert list(registry) == ["focal", "supcon"]
    assert "focal" in registry and "focl" not in registry


def test_registering_returns_the_member():
    @Registry[type]("head").register("linear")
    class Linear:
        pass

    assert isinstance(Linear, type)


def test_a_name_is_registered_once(registry):
    with pytest.raises(ValueError, match="loss 'focal' is registered twice"):
        registry.register("focal")(3)
    assert registry["focal"] == 2


def test_an_unknown_name_shows_the_nearest(registry):
    with pytest.raises(ConfigError, match=r"^loss must be a known name, but got 'supcom'; did you mean supcon\?$"):
        registry["supcom"]


def test_an_unknown_name_without_near_names_shows_all(registry):
    with pytest.raises(ConfigError, match=r"^loss must be a known name, but got 'xyz'; known: focal, supcon$"):
        registry["xyz"]


def test_several_near_names_are_shown_nearest_first():
    message = str(unknown_name("backbone", "resnet19", ["resnet18", "resnet10t", "vit"]))
    assert message == "backbone must be a known name, but got 'resnet19'; did you mean resnet18 or resnet10t?"
