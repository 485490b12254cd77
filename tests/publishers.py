"""Drawn lesions in the layout of published collections."""

import csv
import shutil
from pathlib import Path

from raysk.data.synthetic import make_synthetic

ISIC_2019 = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
OF_ISIC_2019 = {"akiec": "AK"}


def two_publishers(folder: Path, num_images: int, size: int) -> tuple[Path, Path]:
    """Writes half of the lesions like HAM10000 and the other half like ISIC 2019; returns the two folders."""
    make_synthetic(folder / "drawn", num_images, size, seed=0)
    with (folder / "drawn" / "metadata.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    # Both halves get whole lesions of every class.
    lesions_by_class: dict[str, list[str]] = {}
    for row in rows:
        lesions = lesions_by_class.setdefault(row["label"], [])
        if row["group"] not in lesions:
            lesions.append(row["group"])
    first_half = {lesion for lesions in lesions_by_class.values() for lesion in lesions[::2]}
    ham_rows = [row for row in rows if row["group"] in first_half]
    isic_rows = [row for row in rows if row["group"] not in first_half]
    return _ham10000(folder, ham_rows), _isic2019(folder, isic_rows)


def _ham10000(folder: Path, rows: list[dict[str, str]]) -> Path:
    root = folder / "HAM10000"
    lines = ["lesion_id,image_id,dx,dx_type,age,sex,localization"]
    for number, row in enumerate(rows):
        _copy(folder, row, root / f"HAM10000_images_part_{1 + number % 2}" / f"ISIC_{number:07d}.png")
        lines.append(f"HAM_{row['group']},ISIC_{number:07d},{row['label']},histo,50.0,male,back")
    (root / "HAM10000_metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def _isic2019(folder: Path, rows: list[dict[str, str]]) -> Path:
    root = folder / "ISIC2019"
    truth, metadata = [",".join(("image", *ISIC_2019))], ["image,age_approx,anatom_site_general,lesion_id,sex"]
    for number, row in enumerate(rows):
        name = f"ISIC_{9_000_000 + number}"
        _copy(folder, row, root / "ISIC_2019_Training_Input" / f"{name}.png")
        label = OF_ISIC_2019.get(row["label"], row["label"].upper())
        truth.append(",".join([name, *(f"{float(label == class_name)}" for class_name in ISIC_2019)]))
        metadata.append(f"{name},50.0,back,BCN_{row['group']},male")
    (root / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join(truth) + "\n")
    (root / "ISIC_2019_Training_Metadata.csv").write_text("\n".join(metadata) + "\n")
    return root


def _copy(folder: Path, row: dict[str, str], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "drawn" / row["file"], path)
