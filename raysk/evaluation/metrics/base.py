"""The base of all metrics, and the text that names one.

A metric is registered under its form, such as "pauc@CLASS:SENSITIVITY". CLASS stands for the name of a class, and the
word after the colon for a number. A text such as "pauc@mel:0.8" fills the form in.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar, Literal, TypeVar

import numpy as np

from raysk.errors import ConfigError, DataError
from raysk.registry import Registry, unknown_name
from raysk.settings import Between

DEFAULT_METRIC = "macro_f1"

Values = TypeVar("Values", float, np.ndarray)

# Scores resamples of whole groups, (S,), given how often each of them has each group, (S, G).
Resampler = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Form:
    """The form of predictions, and what follows from it.

    Attributes:
        name: Its name.
        usual: The scores of every leaderboard, whatever the study's metric is; see `grids`.
    """

    name: str
    usual: tuple[str, ...]


# A row has a probability of each class, or one of each pixel of its mask. Published tables have these scores.
CLASSES = Form("classes", ("macro_f1", "balanced_accuracy", "macro_auc", "accuracy", "macro_precision"))
MASKS = Form("masks", ("dice", "jaccard", "thresholded_jaccard", "hausdorff95", "surface_distance"))


@dataclass(frozen=True)
class Metric(ABC):
    """A score of probabilities against labels, as a value; a subclass says how to compute it.

    Attributes:
        name: Its form, filled in: "macro_f1" or "pauc@mel:0.8".
        label: Index of the class that it is about; -1 if it is about all.
        class_name: Name of that class; "" if it is about all.
        floor: The number in its name: the least value of another rate; 0 if it has none.
    """

    name: str
    label: int = -1
    class_name: str = ""
    floor: float = 0.0

    form: ClassVar[Form] = CLASSES
    """The form of the predictions that it scores."""
    wording: ClassVar[str]
    """Its title in tables, with the fields in braces."""
    larger_is_better: ClassVar[bool] = True
    floors: ClassVar[Between] = Between(0, 1, open_low=True)
    """The numbers that its name may have."""
    share_of: ClassVar[Literal["class", "others"] | None] = None
    """Whether it is a share of the rows of its class, or of those of other classes."""

    @property
    def title(self) -> str:
        """Its title in tables and sentences."""
        return self.wording.format(**vars(self))

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest possible score."""
        return 0.0, 1.0

    @property
    def worst(self) -> float:
        """The worst possible score."""
        return self.range[0] if self.larger_is_better else self.range[1]

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Its direction, as Optuna names it."""
        return "maximize" if self.larger_is_better else "minimize"

    def oriented(self, values: Values) -> Values:
        """Turns scores into values of which the larger is better, and such values into scores."""
        return values if self.larger_is_better else -values

    def __call__(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Returns the score of each candidate, (...), NaN where it is not defined.

        Args:
            probabilities: (..., N, C); axes before the rows, such as candidates, pass through.
            labels: (N,) classes from 0 to C - 1; of masks, see `MaskMetric`.

        Raises:
            DataError: The labels do not match the probabilities.
        """
        self.check(probabilities, labels)
        return self.scores(probabilities, labels)

    @staticmethod
    def check(probabilities: np.ndarray, truth: np.ndarray) -> None:
        """Refuses probabilities that do not match the truth; see `check_match`."""
        check_match(probabilities, truth)

    @staticmethod
    def kinds(truth: np.ndarray) -> np.ndarray:
        """Returns the kind of each row, (N,), over which its mean is taken: its class."""
        return truth

    @staticmethod
    def log_likelihoods(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Returns the log likelihood of the truth of each row, (..., N)."""
        likelihoods = probabilities[..., np.arange(len(truth)), truth]
        return np.log(np.maximum(likelihoods, np.finfo(np.float32).tiny))

    def is_defined(self, labels: np.ndarray, num_classes: int) -> bool:
        """Returns whether rows of these classes, (N,), have a score."""
        return not np.isnan(self(np.eye(num_classes)[labels], labels))

    @abstractmethod
    def scores(self, probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Computes what a call returns, from arguments that match."""

    def resampler(self, probabilities: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Resampler:
        """Returns the function that scores resamples of whole groups.

        This one repeats rows, which is slow. A metric that can weight rows instead overrides it with equal numbers.

        Args:
            probabilities: (N, C).
            labels: (N,) classes.
            groups: (N,) groups from 0 to G - 1.
        """

        def resampled(times: np.ndarray) -> np.ndarray:
            drawn = (np.repeat(np.arange(len(labels)), of_group[groups]) for of_group in times)
            return np.array([self.scores(probabilities[rows], labels[rows]) for rows in drawn])

        return resampled


metrics: Registry[type[Metric]] = Registry("metric")


def parse_metric(text: str, class_names: Sequence[str] | None = ()) -> Metric:
    """Returns the metric that a text names.

    Args:
        text: A filled-in form: "macro_f1", "auc@mel", "pauc@mel:0.8", "sensitivity@mel|specificity:0.9".
        class_names: The classes of the rows, in order; None checks all but the class, before the rows are known.

    Raises:
        ConfigError: The metric or the class does not exist, or the number is out of range.
    """
    readings = list(_readings(text))
    for form, class_name, number in readings:
        # The name of a class may look like the end of another form, so the first reading that fits counts.
        if class_names is None or class_name is None or class_name in class_names:
            label = -1 if not class_names or class_name is None else list(class_names).index(class_name)
            return _filled_in(form, class_name or "", label, number)
    raise unknown_name(f"the class in {text!r}", str(readings[0][1]), list(class_names or ()))


def _readings(text: str) -> Iterator[tuple[str, str | None, str | None]]:
    """Yields each form that a text fits, the longest first, with its class and its number as texts.

    Raises:
        ConfigError: It fits none.
    """
    bare = text.partition("@")[0]
    forms = [form for form in metrics if form.partition("@")[0] == bare]
    if not forms:
        raise _unknown(text)
    fits = [(form, re.fullmatch(_pattern(form), text, re.DOTALL)) for form in sorted(forms, key=len, reverse=True)]
    readings = [(form, fit.groupdict()) for form, fit in fits if fit]
    if not readings:
        raise ConfigError(f"metric {bare} must be written {' or '.join(forms)}, but got {text!r}: fill it in")
    for form, parts in readings:
        yield form, parts.get("class_name"), parts.get("number")


def _unknown(text: str) -> ConfigError:
    """Returns the error for a text whose metric does not exist, with the forms of the nearest ones."""
    names = list(dict.fromkeys(form.partition("@")[0] for form in metrics))
    nearest = get_close_matches(text.partition("@")[0].lower(), names, n=3, cutoff=0.5)
    shown = [form for name in nearest or names for form in metrics if form.partition("@")[0] == name]
    remedy = f"did you mean {' or '.join(shown)}?" if nearest else f"known: {', '.join(shown)}"
    return ConfigError(f"metric must be a known name, but got {text!r}; {remedy}")


def _pattern(form: str) -> str:
    """Returns the regular expression of the texts that fill a form in."""
    pattern = re.escape(form).replace("CLASS", "(?P<class_name>.+)")
    return re.sub(r":[A-Z]+$", r":(?P<number>[^:|]+)", pattern)


def _filled_in(form: str, class_name: str, label: int, number: str | None) -> Metric:
    kind, name, floor = metrics[form], form, 0.0
    if number is not None:
        floor = _number(form, number, kind.floors)
        name = re.sub(r"[A-Z]+$", f"{floor:.12g}", name)
    # Last, since the name of a class may hold anything.
    return kind(name.replace("CLASS", class_name, 1), label, class_name, floor)


def _number(form: str, text: str, allowed: Between) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if number not in allowed:
        raise ConfigError(f"the number in {form} must be in {allowed}, but got {text}: choose one from that range")
    return number


def check_match(probabilities: np.ndarray, labels: np.ndarray) -> None:
    """Refuses probabilities (..., N, C) and labels (N,) that are not of the same rows and classes.

    Raises:
        DataError: Their shapes do not match, or a label is no class.
    """
    if probabilities.ndim < 2 or labels.shape != probabilities.shape[-2:-1] or not len(labels):
        raise DataError(
            "a score needs probabilities (rows, classes) and a label for each row, "
            f"but got shapes {probabilities.shape} and {labels.shape}: pass both for the same rows"
        )
    num_classes = probabilities.shape[-1]
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DataError(
            f"labels must be classes from 0 to {num_classes - 1}, but got {labels.min()} to {labels.max()}: "
            "score predictions with the labels of their own manifest"
        )


def ratio(part: np.ndarray, whole: np.ndarray, defined: np.ndarray) -> np.ndarray:
    """Returns `part / whole`, NaN where it is not defined."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=defined)


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Returns the mean over the last axis without undefined values; NaN if there are no others."""
    defined = ~np.isnan(values)
    num_defined = defined.sum(axis=-1)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), num_defined, defined=num_defined > 0)
