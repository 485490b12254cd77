"""The leaderboard: the scores and costs of all recipes and ensembles, and the commands that repeat them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from raysk.artifacts import read_json
from raysk.errors import ArtifactError
from raysk.evaluation.attention_record import ConfidentError
from raysk.evaluation.comparison_tables import ComparisonTable
from raysk.evaluation.metrics import DEFAULT_METRIC, Metric, parse_metric
from raysk.evaluation.operating_points import OperatingPoint
from raysk.evaluation.requirement_checks import RequirementCheck

Kind = Literal["two-stage", "one-stage", "probe", "ensemble"]
KINDS = ("two-stage", "one-stage", "probe", "ensemble")

# Suffixes of a headline score: the ends of its interval, its spread over folds, its cross-fitted value, for which each
# fold is scored with the choice of the other folds, and in tables for people its value for the choice of all folds.
SUFFIXES = ("", "_low", "_high", "_sd", "_crossfit", "_chosen")

# The rates at an operating point, as columns.
OPERATING_RATES = ("sensitivity", "specificity", "test_sensitivity", "test_specificity")

# The fact of a leaderboard whose rows have scores of their attention.
MASKS_KNOWN = "masks in the test part"

_LEAST_DIGITS_OF_A_KEY = 6


@dataclass(frozen=True, kw_only=True)
class Row:
    """A recipe or an ensemble.

    Attributes:
        key: Key of the recipe or ensemble.
        name: Display name.
        kind: How it was trained or made.
        scores: By flat name, such as "test_macro_f1", "test_macro_f1_low", "oof_macro_f1_sd"; see `row_scores`.
            Unknown and undefined scores are absent. A row that the folds chose among others can have
            "oof_<metric>_crossfit", an honest score of that choice by the study's metric.
        chosen_on: The rows that chose this recipe, its epoch or its weights.
        scored_on: The rows of the test scores, or else of the out-of-fold scores.
        seconds: Training time over all folds, with the search of stage two.
        images: Number of images trained on, each counted once per view, epoch and fold.
        commit: The version of the code.
        command: The command that repeats this row.
        settings: What distinguishes this row, in one line.
        encoder: What is known of the weights that it began with: that they were published, or how many scored rows they
            have seen; "" for random ones.
        requirements: How it meets each requirement of the study, out of fold.
        operating_points: Thresholds that meet those on the sensitivity or the specificity of a class.

    Raises:
        ArtifactError: A score is not finite or has an unknown prefix, or the kind is unknown.
    """

    key: str
    name: str
    kind: Kind
    scores: Mapping[str, float]
    chosen_on: str
    scored_on: str
    seconds: float
    images: int
    commit: str
    command: str
    settings: str
    requirements: tuple[RequirementCheck, ...] = ()
    operating_points: tuple[OperatingPoint, ...] = ()
    encoder: str = ""

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], where: object) -> "Row":
        """Reads the JSON form that `dataclasses.asdict` gives; `where` names it in errors."""
        checks = tuple(RequirementCheck.from_plain(check, where) for check in plain.get("requirements", ()))
        points = tuple(OperatingPoint.from_plain(point, where) for point in plain.get("operating_points", ()))
        return cls(**{**plain, "requirements": checks, "operating_points": points})

    def honest_score(self, metric: str) -> float | None:
        """Returns the score out of fold that no choice flatters: the cross-fitted one if there is one."""
        return self.scores.get(f"oof_{metric}_crossfit", self.scores.get(f"oof_{metric}"))

    def with_honest_scores(self, metric: str) -> "Row":
        """Returns the row for tables, in which a column of scores out of fold holds honest scores only.

        Of a row that the folds chose among others, other scores out of fold are as flattered as the metric's, and are
        left out; the flattered one has a name of its own.
        """
        if f"oof_{metric}_crossfit" not in self.scores:
            return self
        honest = {name: score for name, score in self.scores.items() if not name.startswith("oof_")}
        honest |= {f"oof_{metric}": self.scores[f"oof_{metric}_crossfit"]}
        return replace(self, scores=honest | {f"oof_{metric}_chosen": self.scores[f"oof_{metric}"]})

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ArtifactError(f"a row must be of kind {', '.join(KINDS)}, but got {self.kind!r}: name one of these")
        for name, value in self.scores.items():
            if not name.startswith(("oof_", "test_")) or not isfinite(value):
                raise ArtifactError(
                    f"a score must be a finite number under a name that starts with oof_ or test_, but got "
                    f"{name}={value} in row {self.key}: leave out undefined scores"
                )


@dataclass(frozen=True)
class Leaderboard:
    """All rows of a study, the best first: by the honest score out of fold, then on the test part, then by key.

    The test part decides among rows without a score out of fold only, so that the order is no choice by it.

    Attributes:
        rows: The rows, given in any order and sorted by score.
        class_names: The classes, in the manifest's order.
        meta: Facts about all rows, such as the dataset or the date, as pairs to print.
        tables: Further tables, in print order.
        metric: Name of the metric by which the rows are ordered.
        chosen: Key of the single recipe that the folds chose before the test part was opened; "" if none was.
        errors: The most confident errors of this recipe, for the page; leaderboard.json leaves their pictures to the
            file that has them (see `with_attention`).

    Raises:
        ArtifactError: Two rows have the same key, two tables the same label, or two rows different requirements.
    """

    rows: tuple[Row, ...]
    class_names: tuple[str, ...]
    meta: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[ComparisonTable, ...] = ()
    metric: str = DEFAULT_METRIC
    chosen: str = ""
    errors: tuple[ConfidentError, ...] = ()

    def __post_init__(self) -> None:
        seen: dict[str, Row] = {}
        for row in self.rows:
            if row.key in seen:
                raise ArtifactError(
                    f"a leaderboard must have one row per key, but {row.key} has two, {seen[row.key].name!r} and "
                    f"{row.name!r}: keep one of them"
                )
            seen[row.key] = row
        labels = [table.label for table in self.tables]
        if len(set(labels)) != len(labels):
            raise ArtifactError(f"the tables of a leaderboard must have different labels, but got {labels}: rename one")
        required = {
            (*(check.requirement for check in row.requirements), *(point.class_name for point in row.operating_points))
            for row in self.rows
        }
        if len(required) > 1:
            raise ArtifactError(
                f"the rows of a leaderboard must have the same requirements, but got {sorted(required)}: check each row"
            )
        object.__setattr__(self, "rows", tuple(sorted(self.rows, key=self._rank)))

    @cached_property
    def ranked_by(self) -> Metric:
        """The metric by which the rows are ordered."""
        return parse_metric(self.metric, self.class_names)

    @property
    def for_tables(self) -> "Leaderboard":
        """The leaderboard whose columns hold one kind of score each; see `Row.with_honest_scores`."""
        return replace(self, rows=tuple(row.with_honest_scores(self.metric) for row in self.rows))

    @property
    def headline(self) -> tuple[str, ...]:
        """The names of the scores that tables show before those of each class: the metric, and the usual ones."""
        return tuple(dict.fromkeys((self.metric, *self.ranked_by.form.usual)))

    @property
    def requirements(self) -> tuple[str, ...]:
        """The texts of the requirements that all rows were checked for."""
        return tuple(check.requirement for check in self.rows[0].requirements) if self.rows else ()

    @property
    def operating_classes(self) -> tuple[str, ...]:
        """The classes that the rows have operating points for."""
        return tuple(point.class_name for point in self.rows[0].operating_points) if self.rows else ()

    @property
    def score_columns(self) -> tuple[str, ...]:
        """The names of the scores of all rows: headline scores first, test before out-of-fold."""
        return tuple(sorted({name for row in self.rows for name in row.scores}, key=self._column_rank))

    def to_table(self) -> pa.Table:
        """Returns a table with one line per row and one column per score, null where a row has none."""
        columns: dict[str, pa.Array] = {
            name: pa.array([getattr(row, name) for row in self.rows], pa.string())
            for name in ("key", "name", "kind", "settings", "encoder")
        }
        for name in self.score_columns:
            columns[name] = pa.array([row.scores.get(name) for row in self.rows], pa.float64())
        for place, name in enumerate(self.requirements):
            checks = [row.requirements[place] for row in self.rows]
            columns[f"oof_{name}"] = pa.array([check.score for check in checks], pa.float64())
            columns[f"oof_{name}_bound"] = pa.array([check.bound for check in checks], pa.float64())
            columns[f"oof_{name}_met"] = pa.array([check.is_met for check in checks], pa.bool_())
        for place, name in enumerate(self.operating_classes):
            points = [row.operating_points[place] for row in self.rows]
            for rate in ("threshold", *OPERATING_RATES):
                columns[f"operating_{rate}_{name}"] = pa.array([getattr(point, rate) for point in points], pa.float64())
        for name in ("chosen_on", "scored_on"):
            columns[name] = pa.array([getattr(row, name) for row in self.rows], pa.string())
        columns["seconds"] = pa.array([row.seconds for row in self.rows], pa.float64())
        columns["images"] = pa.array([row.images for row in self.rows], pa.int64())
        for name in ("commit", "command"):
            columns[name] = pa.array([getattr(row, name) for row in self.rows], pa.string())
        return pa.table(columns)

    def to_json(self) -> dict[str, Any]:
        """Returns the leaderboard as plain JSON, without the errors."""
        return {
            "rows": [asdict(row) | {"scores": dict(row.scores)} for row in self.rows],
            "class_names": list(self.class_names),
            "meta": dict(self.meta),
            "tables": [asdict(table) for table in self.tables],
            "metric": self.metric,
            "chosen": self.chosen,
        }

    @classmethod
    def read(cls, path: Path) -> "Leaderboard":
        """Reads leaderboard.json.

        Raises:
            ArtifactError: The file is missing or does not hold a leaderboard.
        """
        content = read_json(path)
        try:
            rows = tuple(Row.from_json(row, path) for row in content["rows"])
            # A leaderboard of an older version has no tables, one metric and no chosen row.
            tables = tuple(ComparisonTable.from_json(table) for table in content.get("tables", []))
            class_names = tuple(content["class_names"])
            metric, chosen = content.get("metric", DEFAULT_METRIC), content.get("chosen", "")
            return cls(rows, class_names, content["meta"], tables, metric, chosen)
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"{path} must hold a leaderboard, but its content is wrong ({error}): write it again from its run"
            ) from error

    def _rank(self, row: Row) -> tuple[float, float, str]:
        metric = self.ranked_by
        test, out_of_fold = row.scores.get(f"test_{metric.name}"), row.honest_score(metric.name)
        last = float("inf")
        return (
            last if out_of_fold is None else -metric.oriented(out_of_fold),
            last if test is None else -metric.oriented(test),
            row.key,
        )

    def _column_rank(self, column: str) -> tuple[int, bool, str]:
        part, name = column.split("_", 1)
        for place, score in enumerate(self.headline):
            suffix = name.removeprefix(score)
            if suffix in SUFFIXES:
                return place, part == "oof", str(SUFFIXES.index(suffix))
        return len(self.headline), part == "oof", name


def find_row(leaderboard: Leaderboard, wanted: str) -> Row:
    """Finds a row by its place, its name or the start of its key.

    Raises:
        ArtifactError: No row matches, or several do.
    """
    rows = leaderboard.rows
    if wanted.isdecimal() and 1 <= int(wanted) <= len(rows):
        return rows[int(wanted) - 1]
    # A short number is a missing place, not the start of a key that happens to be all digits.
    is_place = wanted.isdecimal() and str(int(wanted)) == wanted and len(wanted) < _LEAST_DIGITS_OF_A_KEY
    by_key = [] if is_place else [row for row in rows if row.key.startswith(wanted)]
    matches = [row for row in rows if row.name == wanted] or by_key
    if len(matches) != 1:
        names = ", ".join(f"{place} {row.name!r}" for place, row in enumerate(rows, start=1))
        value = f"{wanted!r} matches {len(matches)} rows" if matches else f"got {wanted!r}"
        nearest = get_close_matches(wanted, [row.name for row in rows], n=1)
        remedy = f"did you mean {nearest[0]!r}?" if nearest and not matches else f"choose one of {names}"
        raise ArtifactError(f"ROW must be a place, a name or a key of one row, but {value}: {remedy}")
    return matches[0]
