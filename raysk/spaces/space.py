"""A search space: which recipes a study tries. Read from `search_spaces/NAME.yaml`.

    about: one sentence
    settings: [KEY=VALUE, ...]              the base that all recipes of the space share
    search:
      KEY: sweep                            choice(...), interval(...), range(...), tag(log, ...) in Hydra's grammar
      KEY: {sweep: sweep, when: KEY=VALUE}  a parameter that exists for one choice only, or KEY=choice(...) for several
      KEY: [{sweep:, when:}, ...]           other values for other choices
    starts: {NAME: [KEY=VALUE, ...]}        points of the space that are tried first; the first is the paper's
    controls: {NAME: [KEY=VALUE, ...]}      recipes outside the space that it is compared with
    grid: {NAME: [KEY=VALUE, ...]}          instead of a search: recipes as they stand, for a table in this order
    families: [NAME, ...]                   instead of a search: other spaces, which compete with equal budgets
    include: [NAME, ...]                    searched settings and controls from conf/fragments/NAME.yaml

The command line comes over the base and the starts: a searched setting that it gives is searched no more, and one to
which it gives a sweep is searched there. A control stands as the file has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from hydra.core.override_parser.types import Override

from raysk.artifacts import digest_of
from raysk.config import Config, compose_plain, read_config
from raysk.errors import ConfigError
from raysk.overrides import parse_overrides
from raysk.records import PointKind
from raysk.spaces.files import find_space, read_space_file
from raysk.spaces.stage_two_search import StageTwoSearch
from raysk.spaces.sweeps import Parameter, assigned, distribution, lookup, override_texts, read_parameters, values_of

# What decides which features there are, or is no property of the result: searched with stage one, or not at all.
_NEVER_INNER = ("stage_two.frozen", "stage_two.search", "stage_two.accumulate")


@dataclass(frozen=True)
class Point:
    """One recipe of a study, and where it came from.

    Args:
        name: "paper", the name of a control, or "trial 7".
        kind: A start, a control, or drawn by the search.
        family: The family that it is of; "" for a control.
        own: Overrides that make the point; over the user's, they say all that the space leaves open.
        values: What the trial itself searches, by the parameter's name; a control has none.
        base: What a search of stage two starts from, by key.
    """

    name: str
    kind: PointKind
    family: str
    own: tuple[str, ...]
    values: dict[str, Any] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """A space without its controls: recipes of one method.

    Args:
        name: Of the file.
        settings: Overrides that all of its recipes share.
        parameters: What is searched.
        starts: Points to try first.
    """

    name: str
    settings: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    starts: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Space:
    """What a study tries, with a command line over it.

    Args:
        name: Of its file.
        about: One sentence.
        user: Overrides of the command line that are no sweeps.
        families: The methods that are searched; one, unless they compete.
        controls: Recipes to compare with, by name.
        grid: Names of the controls that make a table of their own, in its order.
        settings: Overrides that the controls share.
    """

    name: str
    about: str
    user: tuple[str, ...]
    families: tuple[Family, ...]
    controls: dict[str, tuple[str, ...]]
    grid: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Names what is tried, whatever the files of the space are called."""
        families = [
            [family.name, family.settings, [parameter.to_plain() for parameter in family.parameters], family.starts]
            for family in self.families
        ]
        return digest_of([families, self.controls, self.grid, self.settings])

    def config(self, point: Point | None = None) -> Config:
        """Returns the validated configuration of a point, or of the base.

        Raises:
            ConfigError: An override does not exist, or a value breaks a rule.
        """
        family, own = (self.family(point.family), point.own) if point else (None, ())
        return read_config(self._compose(family, *own))

    def family(self, name: str) -> Family | None:
        """Returns a family by its name; None for that of a control."""
        return next((family for family in self.families if family.name == name), None)

    def named_points(self, num_trials: int | None = None) -> list[Point]:
        """Returns the points that are known before the search.

        The paper's setting comes first, then the controls, then the other starts. Where families compete the controls
        come first, then the families take turns.

        Args:
            num_trials: Leaves out those that so many trials do not come to.
        """
        controls = [self._control(name, texts) for name, texts in self.controls.items()]
        starts = [[self._start(f, name, texts) for name, texts in f.starts.items()] for f in self.families]
        if len(starts) == 1:
            return [*starts[0][:1], *controls, *starts[0][1:]][:num_trials]
        longest = max((len(points) for points in starts), default=0)
        if num_trials is not None and starts:
            # A family with many starts must not have more trials than the others.
            longest = min(longest, (num_trials - len(controls)) // len(starts))
        turns = [points[turn] for turn in range(longest) for points in starts if turn < len(points)]
        return [*controls, *turns][:num_trials]

    def num_trials(self, asked: int | None) -> int:
        """Returns how many recipes the study tries: as asked, or by default two of each family beside all named ones.

        Families that compete get the same number each, so that what is left over by the division is not tried.
        """
        named, families = len(self.named_points()), len(self.families)
        if families <= 1:
            searched = any(family.parameters for family in self.families)
            if not searched:
                return named if asked is None else min(asked, named)
            return named + 1 if asked is None else asked
        each = 2 if asked is None else max(1, (asked - len(self.controls)) // families)
        return len(self.controls) + each * families

    def draw(self, trial: optuna.Trial, family: Family, point: Point | None = None) -> Point:
        """Returns the point that a trial proposes, drawing one value of each parameter that exists.

        What a search of stage two will try on the frozen encoder is not drawn.

        Args:
            trial: Optuna's side; it was queued with the values of a start.
            family: Whose parameters are drawn.
            point: The start, if it is one.
        """
        settings: dict[str, Any] = {}
        values, base = {}, {}
        plain = self._compose(family)
        for parameter in family.parameters:
            if not parameter.exists(plain):
                continue
            if _is_inner(parameter, plain):
                if point is not None and parameter.key in point.base:
                    settings[parameter.key] = base[parameter.key] = point.base[parameter.key]
            else:
                settings[parameter.key] = values[parameter.name] = parameter.draw(trial)
            if parameter.key in settings:
                plain = assigned(plain, parameter.key, settings[parameter.key])
        name = point.name if point else self._named(family, f"trial {trial.number}")
        kind: PointKind = point.kind if point else "drawn"
        return Point(name, kind, family.name, override_texts(settings), values, base)

    def stage_two_search(self, point: Point) -> StageTwoSearch | None:
        """Returns the search of stage two on the encoders of a point; None where there is nothing to search."""
        family = self.family(point.family)
        if family is None:
            return None
        plain = self._compose(family, *point.own)
        parameters = tuple(parameter for parameter in family.parameters if _is_inner(parameter, plain))
        config = self.config(point)
        return StageTwoSearch(config.recipe, parameters, config.stage_two.search) if parameters else None

    def _compose(self, family: Family | None, *own: str) -> dict[str, Any]:
        return compose_plain(*(family or self).settings, *self.user, *own)

    def _named(self, family: Family, name: str) -> str:
        return name if len(self.families) == 1 else f"{family.name}: {name}"

    def _start(self, family: Family, name: str, texts: tuple[str, ...]) -> Point:
        plain = compose_plain(*family.settings, *texts, *self.user)
        found = values_of(family.parameters, plain)
        own, values, base = {}, {}, {}
        for parameter in family.parameters:
            # A sweep of the command line may leave the start's value out; then the search draws one from the sweep.
            if parameter.exists(plain) and parameter.key in found and parameter.allows(found[parameter.key]):
                own[parameter.key] = found[parameter.key]
                if _is_inner(parameter, plain):
                    base[parameter.key] = found[parameter.key]
                else:
                    values[parameter.name] = found[parameter.key]
        return Point(self._named(family, name), "start", family.name, override_texts(own), values, base)

    def _control(self, name: str, texts: tuple[str, ...]) -> Point:
        # Searched settings that the control leaves open are written down too, so that it stands on its own.
        parameters = self.families[0].parameters if len(self.families) == 1 else ()
        values = values_of(parameters, self._compose(None, *texts))
        given = {item.key_or_group: text for item, text in zip(parse_overrides(texts), texts, strict=True)}
        left = {key: value for key, value in values.items() if key not in given}
        return Point(name, "control", "", (*given.values(), *override_texts(left)))


def _is_inner(parameter: Parameter, plain: dict[str, Any]) -> bool:
    """Returns whether a search of stage two on a frozen encoder tries this parameter, and not the trial itself."""
    searched = (
        lookup(plain, "stage_two.search") and lookup(plain, "stage_two.frozen") and plain["stage_one"] is not None
    )
    return bool(searched) and parameter.key.startswith("stage_two.") and parameter.key not in _NEVER_INNER


def load_space(name: str, command_line: Sequence[str] = ()) -> Space:
    """Reads a space by name, or from a file, and lays a command line over it.

    Raises:
        ConfigError: No such space, a file that is not one, or an override that does not exist.
    """
    path = find_space(name)
    content = read_space_file(path)
    given = parse_overrides(command_line)
    user = tuple(text for text, item in zip(command_line, given, strict=True) if not item.is_sweep_override())
    names = content.get("families") or []
    files = {other: read_space_file(find_space(other)) for other in names} or {path.stem: content}
    families = []
    for family, file in files.items():
        found = _family(f"{path if not names else find_space(family)}", family, file, given)
        families.append(found if not names else _prefixed(found))
    grid = {point: _flat(texts) for point, texts in (content.get("grid") or {}).items()}
    controls = {point: _flat(texts) for point, texts in (content.get("controls") or {}).items()}
    return Space(
        name=path.stem,
        about=" ".join(content["about"].split()),
        user=user,
        families=tuple(family for family in families if family.parameters or family.starts),
        controls=grid | controls,
        grid=tuple(grid),
        settings=_flat(content.get("settings") or []),
    )


def _family(where: str, name: str, content: dict[str, Any], given: list[Override]) -> Family:
    """Reads what a space searches, with the sweeps of the command line in place of the file's."""
    searched = {key: read_parameters(where, key, entry) for key, entry in (content.get("search") or {}).items()}
    for item in given:
        key = item.key_or_group
        if item.is_sweep_override():
            # The condition of the file stays; where it has several, the sweep stands for all of them.
            known = searched.get(key, [])
            when = known[0].when if len(known) == 1 else None
            searched[key] = [Parameter(key, distribution(where, item), when)]
        else:
            searched.pop(key, None)
    starts = {start: _flat(texts) for start, texts in (content.get("starts") or {}).items()}
    named = {*(content.get("search") or {}), *searched}
    for start, texts in starts.items():
        for item in parse_overrides(texts):
            if item.key_or_group not in named:
                raise ConfigError(f"{where}: a start must set searched keys only, but {start} sets {item.key_or_group}")
    # Stage two is drawn last, so that the same seed gives the same encoders however stage two is searched.
    every = [parameter for found in searched.values() for parameter in found]
    parameters = tuple(sorted(every, key=lambda parameter: parameter.key.startswith("stage_two.")))
    return Family(name, _flat(content.get("settings") or []), parameters, starts)


def _prefixed(family: Family) -> Family:
    """Names the parameters of a competing family apart from those of the others, as Optuna wants them."""
    parameters = tuple(replace(p, name=f"{family.name}: {p.name}") for p in family.parameters)
    return replace(family, parameters=parameters)


def _flat(texts: list[Any]) -> tuple[str, ...]:
    """Joins lists within a list: what a YAML alias of a shared list leaves."""
    return tuple(text for item in texts for text in (_flat(item) if isinstance(item, list) else [item]))
