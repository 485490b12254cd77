"""The number formats in which encoders compute; heads and losses compute in float32."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["auto", "float32", "bfloat16"]


def compute_dtype(device: torch.device, precision: Precision = "auto") -> torch.dtype:
    """Returns the format of an encoder on a device.

    "auto" is bfloat16 on GPUs that support it, float16 on older GPUs, and float32 on a CPU.
    """
    if precision != "auto":
        return torch.float32 if precision == "float32" else torch.bfloat16
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def autocast(device: torch.device, precision: Precision = "auto") -> AbstractContextManager[object]:
    """Returns the context in which an encoder runs."""
    dtype = compute_dtype(device, precision)
    return nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype=dtype)


def at_least_single(values: Tensor) -> Tensor:
    """Returns half-precision values in float32, where sums of exponentials keep their digits; others unchanged."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def gradient_scaler(device: torch.device) -> torch.amp.GradScaler:
    """Returns the scaler that keeps float16 gradients above zero; it does nothing in the other formats."""
    return torch.amp.GradScaler(device.type, enabled=compute_dtype(device) is torch.float16)


def sum_in_one_order() -> None:
    """Makes cuDNN sum in the same order each time, so that results repeat digit for digit.

    It costs no measurable time.
    """
    torch.backends.cudnn.deterministic = True
