"""`raysk data show` and `raysk data prepare`: inspect a collection and prepare it for training."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from raysk.config import Config
    from raysk.data.manifest import Manifest

EXAMPLE = "data=ham10000 data.path=DIR, image_size=64"


def add_data_commands(commands: Any) -> None:
    """Adds both commands to those of `raysk data`.

    Args:
        commands: The result of `add_subparsers` on `raysk data`.
    """
    show = commands.add_parser("show", help="print classes, groups and sizes of a collection, and draw contact sheets")
    show.set_defaults(run_command=_show)
    prepare = commands.add_parser(
        "prepare", help="decode the images of a collection once, and write its manifest.parquet"
    )
    prepare.set_defaults(run_command=_prepare)
    prepare.add_argument(
        "--sizes", type=int, nargs="+", default=[], metavar="PIXELS", help="several sizes at once (image_size)"
    )
    for command in (show, prepare):
        command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=EXAMPLE)
        command.add_argument("--out", type=Path, metavar="DIR", help="output folder (prepared/SOURCE)")


def _show(arguments: argparse.Namespace) -> int:
    from raysk.cli.dataset_tables import attribute_table, class_table, group_sentence, size_table
    from raysk.data.sources import load_manifest
    from raysk.loading import progress_bar

    config, console, out = _begin(arguments)
    manifest = load_manifest(config.data, config.cache_folder)
    console.print(class_table(manifest))
    _say(console, group_sentence(manifest))
    with progress_bar(console, "reading sizes") as bar:
        console.print(size_table(manifest, bar))
    if manifest.attributes:
        console.print(attribute_table(manifest))
    _draw_sheets(manifest, out / "sheets", console)
    _say(console, f"Next, look for leaks and duplicates: {_command(['raysk', 'data', 'audit', *arguments.overrides])}")
    return 0


def _prepare(arguments: argparse.Namespace) -> int:
    from raysk.cli.dataset_tables import class_table, group_sentence
    from raysk.loading import read_images, read_rows

    config, console, out = _begin(arguments)
    shapes = [(size, config.recipe.crop) for size in arguments.sizes]
    manifest, by_name = read_images(read_rows(config, console), config, console, shapes)
    stores = list(by_name.values())
    for store in stores:
        store.verify()
    path = out / "manifest.parquet"
    manifest.write(path)
    console.print(class_table(manifest))
    _say(console, group_sentence(manifest))
    for store in stores:
        size = store.pixels.shape[1]
        _say(console, f"{len(manifest)} images of {size} × {size} pixels are in {store.folder}, all verified")
    _say(console, f"the rows are in {path}")
    # The command names the size even if it is the default: another size would decode the images again.
    overrides = [text for text in arguments.overrides if not text.startswith("image_size=")]
    words = ["raysk", "tune", "--space", "supcon", *overrides, f"image_size={stores[0].pixels.shape[1]}"]
    _say(console, f"Next, search for the best classifier: {_command(words)}")
    return 0


def _begin(arguments: argparse.Namespace) -> "tuple[Config, Console, Path]":
    from rich.console import Console

    from raysk.config import compose_plain, read_config

    config = read_config(compose_plain(*arguments.overrides))
    names = [part.name or part.source for part in config.data.collections] or [config.data.source]
    return config, Console(soft_wrap=True), arguments.out or Path("prepared") / "+".join(names)


def _draw_sheets(manifest: "Manifest", folder: Path, console: "Console") -> None:
    from raysk.data.contact_sheets import draw_contact_sheet
    from raysk.data.manifest import NO_LABEL

    unlabelled = [(NO_LABEL, "unlabelled")] if len(manifest.unlabelled_rows) else []
    for label, name in [*enumerate(manifest.class_names), *unlabelled]:
        # A class may be called "a/b" or "..", which are not file names.
        place = f"{label:02d}-" if label != NO_LABEL else ""
        path = folder / f"{place}{''.join(sign if sign.isalnum() else '_' for sign in name)}.png"
        draw_contact_sheet(manifest, label, path)
        _say(console, f"contact sheet of {name}: {path}")


def _command(words: list[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)


def _say(console: "Console", text: str) -> None:
    console.print(text, markup=False, highlight=False)
