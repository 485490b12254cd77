"""No space corrects the class prior twice: at most one of sampler, loss, head and predictions does."""

from collections.abc import Iterator
from typing import Any

import optuna
import pytest

from raysk.config import compose_plain, read_config
from raysk.overrides import parse_overrides
from raysk.spaces.families import Family
from raysk.spaces.files import list_spaces
from raysk.spaces.space import load_space
from raysk.spaces.sweeps import assigned

NUM_DRAWS = 2000
NAMES = [name for name, _ in list_spaces()]
# Losses whose minimum is a classifier for other class shares than those of the rows. Focal loss and label-aware
# smoothing change the confidence.
CORRECTING = {"class_balanced", "generalized_reweight", "balanced_softmax", "logit_adjustment", "vs", "ldam", "gcl"}
UNTRAINED = {"tau_norm", "ncm"}


def corrections(stage: dict[str, Any]) -> list[str]:
    """Returns what corrects the prior of a stage's classifier."""
    loss = stage["classifier_loss"] if "classifier_loss" in stage else stage["loss"]
    if loss is None:
        return []
    is_trained = stage.get("head", {}).get("name") not in UNTRAINED
    corrected = {
        "head": not is_trained,
        "sampler": is_trained and stage["sampler"]["name"] not in ("instance", "per_class"),
        "loss": is_trained and (loss["name"] in CORRECTING or loss.get("weights", "none") != "none"),
        "predictions": stage.get("adjustment", 0) > 0,
    }
    return [what for what, is_corrected in corrected.items() if is_corrected]


def draws(family: Family, count: int) -> Iterator[dict[str, Any]]:
    """Yields configurations of a family. As in a study, stage two is drawn from all starts and from no start."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    # A ready encoder has weights.
    given = ("model.pretrained=true",) if family.name == "probe" else ()
    bases = [compose_plain(*family.settings, *given, *texts) for texts in ((), *family.starts.values())]
    yield from bases
    for number in range(count):
        plain = bases[number % len(bases)]
        for parameter in family.parameters:
            if parameter.exists(plain):
                value = study.sampler.sample_independent(study, trial, parameter.name, parameter.distribution)
                if str(value).startswith("["):  # views are drawn as the text of a list
                    value = parse_overrides([f"{parameter.key}={value}"])[0].value()
                plain = assigned(plain, parameter.key, value)
        yield plain


@pytest.mark.parametrize("name", NAMES)
def test_no_draw_of_a_space_corrects_the_prior_twice(name):
    families = load_space(name).families
    for family in families:
        count = NUM_DRAWS // len(families)
        seen = set()
        for number, plain in enumerate(draws(family, count)):
            stages = [plain["stage_two"]] if plain["stage_one"] is None else [plain["stage_one"], plain["stage_two"]]
            for stage in stages:
                assert len(corrections(stage)) <= 1, stage
                seen |= set(corrections(stage))
            if number % 100 == 0:
                read_config(plain)  # and it is a valid recipe
        if name in ("decouple", "longtail"):
            assert {"loss", "sampler"} <= seen, "each correction is drawn"
