"""Which families compete on given rows: those whose starts these rows and the network allow."""

from dataclasses import replace

import numpy as np

from raysk.data.manifest import Manifest
from raysk.errors import ConfigError
from raysk.initial_weights import check_networks
from raysk.run_checks import check_rows
from raysk.spaces.space import Space


def fitting(space: Space, manifest: Manifest) -> tuple[Space, dict[str, str]]:
    """Leaves out competing families with a start that the rows or the network do not allow.

    Returns:
        The space of the others, and why each is left out, by its name.

    Raises:
        ConfigError: None is left.
    """
    if len(space.families) == 1:
        return space, {}
    unlabelled, usual = manifest.unlabelled_rows, space.config().recipe.model
    rows = np.setdiff1d(np.arange(len(manifest)), unlabelled)
    unfit: dict[str, str] = {}
    for point in space.starts():
        try:
            recipe = space.config(point).recipe
            check_rows(recipe, manifest, rows, len(unlabelled))
            if recipe.model != usual:
                check_networks([recipe])
        except ConfigError as error:
            unfit.setdefault(point.family, str(error))
            if len(unfit) == len(space.families):
                raise
    return replace(space, families=tuple(family for family in space.families if family.name not in unfit)), unfit
