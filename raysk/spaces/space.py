"""A search space: the recipes that a study tries, read from `search_spaces/NAME.yaml`.

    about: one sentence
    settings: [KEY=VALUE, ...]              the base that all recipes of the space share
    search:
      KEY: sweep                            choice(...), interval(...), range(...), tag(log, ...) in Hydra's grammar
      KEY: {sweep: sweep, when: KEY=VALUE}  a parameter that exists for one choice only, or KEY=choice(...) for several;
                                            of several conditions in a list, all must hold
      KEY: [{sweep:, when:}, ...]           different values for different choices: the first whose condition holds; the
                                            last one may have none, for all other choices
    starts: {NAME: [KEY=VALUE, ...]}        points of the space to try first; the first one is the paper's; a name may
                                            hold ${KEY}
    controls: {NAME: [KEY=VALUE, ...]}      recipes outside the space, for comparison
    grid: {NAME: [KEY=VALUE, ...]}          instead of a search: fixed recipes, for a table in this order; a recipe with
                                            KEY=choice(...) is tried with each of the values
    families: [NAME, ...]                   instead of a search: other spaces, which compete with equal budgets
    include: [NAME, ...]                    searched settings and controls from conf/fragments/NAME.yaml

The command line overrides the base and the starts. A value fixes a searched setting; a sweep replaces its sweep, and
tries each recipe of a grid with each of the values. A control keeps the settings of the file, and has the first choice
of a sweep over networks, files or image sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import optuna

from raysk.artifacts import digest_of
from raysk.config import Config, compose_plain, filled_in, read_config
from raysk.evaluation.goals import Goal
from raysk.overrides import parse_overrides
from raysk.records import PointKind
from raysk.spaces.families import Family, check_values, flat, prefixed, read_family
from raysk.spaces.files import find_space, read_space_file
from raysk.spaces.grids import GridPoint, grid_points
from raysk.spaces.merging import control_overrides, of_family, start_overrides
from raysk.spaces.stage_two_search import NEVER_INNER, StageTwoSearch, is_inner
from raysk.spaces.sweeps import (
    Parameter,
    assigned,
    first_encoder,
    override_texts,
    values_of,
)


@dataclass(frozen=True)
class Point:
    """One recipe of a study, and its origin.

    Args:
        name: "paper, 10 epochs", the name of a control, or "trial 7".
        kind: A start, a control, or drawn by the search.
        family: The name of its family; "" for a control.
        own: Overrides of the point. With the user's overrides, they set everything that the space leaves open.
        values: Values of the parameters that the trial searches, by parameter name; empty for a control.
        base: Values from which a search of stage two starts, by key.
    """

    name: str
    kind: PointKind
    family: str
    own: tuple[str, ...]
    values: dict[str, Any] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Space:
    """A search space with the overrides of a command line.

    Args:
        name: The name of its file.
        about: One sentence.
        user: Overrides of the command line, without its sweeps.
        families: The searched methods; one, unless several compete.
        controls: Recipes for comparison, by name.
        grid: The controls that form tables of their own, in their order.
        settings: Overrides that the controls share.
    """

    name: str
    about: str
    user: tuple[str, ...]
    families: tuple[Family, ...]
    controls: dict[str, tuple[str, ...]]
    grid: dict[str, GridPoint] = field(default_factory=dict)
    settings: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """A name made from the content of the space, independent of its file names."""
        families = [
            [family.name, family.settings, [parameter.to_plain() for parameter in family.parameters], family.starts]
            for family in self.families
        ]
        return digest_of([families, self.controls, list(self.grid), self.settings])

    def config(self, point: Point | None = None) -> Config:
        """Returns the validated configuration of a point, or of the base.

        Raises:
            ConfigError: An override does not exist, or a value breaks a rule.
        """
        family, overrides = (self.family(point.family), point.own) if point else (None, ())
        return read_config(self.compose(family, *overrides))

    def family(self, name: str) -> Family | None:
        """Returns a family by its name; None for that of a control, ""."""
        return next((family for family in self.families if family.name == name), None)

    def starts(self) -> list[Point]:
        """Returns the starts, in the order in which the study tries them: families take turns."""
        starts = [[self._start(f, name, texts) for name, texts in f.starts.items()] for f in self.families]
        longest = max(map(len, starts), default=0)
        return [points[turn] for turn in range(longest) for points in starts if turn < len(points)]

    def control_points(self) -> list[Point]:
        """Returns the controls, in the order in which the study tries them."""
        return [self._control(name, texts) for name, texts in self.controls.items()]

    def named_points(self) -> list[Point]:
        """Returns the starts and the controls."""
        return [*self.starts(), *self.control_points()]

    def draw(self, trial: optuna.trial.BaseTrial, family: Family, point: Point | None = None) -> Point:
        """Draws a point: one value for each parameter that exists.

        Parameters that a search of stage two will try on the frozen encoder are not drawn.

        Args:
            trial: Optuna's trial; for a start, it was queued with the start's values.
            family: The family whose parameters are drawn.
            point: The start, if the trial is one.
        """
        settings: dict[str, Any] = {}
        values, base = {}, {}
        plain = self.compose(family)
        for parameter in family.parameters:
            if not parameter.exists(plain):
                continue
            key = parameter.key
            if is_inner(parameter, plain):
                # So that the recipe lies within its space, as the search of stage two does.
                for own in values_of([parameter], plain).values():
                    base[key] = point.base[key] if point and key in point.base else parameter.nearest(own)
                    settings[key] = base[key]
            else:
                settings[key] = values[parameter.name] = parameter.draw(trial)
            if key in settings:
                plain = assigned(plain, key, settings[key])
        name = point.name if point else self._named(family, f"trial {trial.number}")
        kind: PointKind = point.kind if point else "drawn"
        return Point(name, kind, family.name, override_texts(settings), values, base)

    def drawn_parameters(self, family: Family) -> tuple[Parameter, ...]:
        """Returns the parameters that a draw may have, without those that only a search of stage two tries."""
        plain = self.compose(family)
        if any(parameter.key in NEVER_INNER for parameter in family.parameters):
            return family.parameters  # Draws decide whether there is a search of stage two.
        return tuple(parameter for parameter in family.parameters if not is_inner(parameter, plain))

    def stage_two_search(self, point: Point) -> StageTwoSearch | None:
        """Returns the search of stage two on the encoders of a point; None if it has nothing to search."""
        family = self.family(point.family)
        if family is None:
            return None
        plain = self.compose(family, *point.own)
        parameters = tuple(parameter for parameter in family.parameters if is_inner(parameter, plain))
        if not parameters:
            return None
        config = self.config(point)
        goal = Goal.parse(config.metric, config.require, None)
        require = tuple(requirement.name for requirement in goal.requirements)
        return StageTwoSearch(config.recipe, parameters, config.stage_two.search, goal.metric.name, require)

    def compose(self, family: Family | None, *overrides: str) -> dict[str, Any]:
        """Returns the configuration of a family, or of the controls, before it is validated."""
        settings = (family or self).settings
        user, usual = self._given(settings)
        return compose_plain(*settings, *control_overrides(user, overrides, usual))

    def _given(self, settings: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Returns what the command line gives to settings of the space; see `of_family`."""
        return (self.user, ()) if len(self.families) == 1 else of_family(self.user, compose_plain(*settings))

    def _named(self, family: Family, name: str) -> str:
        return name if len(self.families) == 1 else f"{family.name}: {name}"

    def _start(self, family: Family, name: str, texts: tuple[str, ...]) -> Point:
        user, usual = self._given(family.settings)
        plain = compose_plain(*family.settings, *start_overrides(user, texts, usual))
        start_values = values_of(family.parameters, plain)
        settings, values, base = {}, {}, {}
        for parameter in (p for p in family.parameters if p.key in start_values and p.exists(plain)):
            key = parameter.key
            if is_inner(parameter, plain):
                settings[key] = base[key] = parameter.nearest(start_values[key])
            # A sweep of the command line may exclude the start's value; then the search draws one from the sweep.
            elif parameter.allows(start_values[key]):
                settings[key] = values[parameter.name] = start_values[key]
        return Point(
            self._named(family, filled_in(name, plain)), "start", family.name, override_texts(settings), values, base
        )

    def _control(self, name: str, texts: tuple[str, ...]) -> Point:
        # The control also records the searched settings that it leaves open, so that it is complete.
        parameters = self.families[0].parameters if len(self.families) == 1 else ()
        values = values_of(parameters, self.compose(None, *texts))
        given = {item.key_or_group: text for item, text in zip(parse_overrides(texts), texts, strict=True)}
        others = override_texts({key: value for key, value in values.items() if key not in given})
        return Point(name, "control", "", (*given.values(), *others))


def load_space(name: str, command_line: Sequence[str] = ()) -> Space:
    """Reads a space by its name or from a file, and applies the overrides of a command line.

    Raises:
        ConfigError: The space or a key does not exist, the file is not a space, or a sweep has an impossible value.
    """
    path = find_space(name)
    content = read_space_file(path)
    given = parse_overrides(command_line)
    user = tuple(text for text, item in zip(command_line, given, strict=True) if not item.is_sweep_override())
    names = content.get("families") or []
    files = {file_name: read_space_file(find_space(file_name)) for file_name in names} or {path.stem: content}
    families = []
    points = {point: flat(texts) for point, texts in (content.get("grid") or {}).items()}
    sweeps = [item for item in given if item.is_sweep_override() and points]
    searched = [item for item in given if item not in sweeps]
    base = first_encoder(searched)
    for file_name, file in files.items():
        family = read_family(f"{path if not names else find_space(file_name)}", file_name, file, searched)
        family = replace(family, settings=(*family.settings, *base))
        families.append(family if not names else prefixed(family))
    grid = grid_points(f"{path}", points, sweeps)
    controls = {point: flat(texts) for point, texts in (content.get("controls") or {}).items()}
    space = Space(
        name=path.stem,
        about=" ".join(content["about"].split()),
        user=user,
        families=tuple(family for family in families if family.parameters or family.starts),
        controls={name: point.overrides for name, point in grid.items()} | controls,
        grid=grid,
        settings=(*flat(content.get("settings") or []), *base),
    )
    swept = {item.key_or_group for item in searched if item.is_sweep_override()}
    for family in space.families:
        # A part that the command line names may have other rules than that for which the file has its sweeps.
        for is_given, plain in ((True, space.compose(family)), (False, compose_plain(*family.settings))):
            check_values(tuple(p for p in family.parameters if (p.key in swept) is is_given), plain)
    return space
