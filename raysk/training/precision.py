"""Mixed precision on devices that support it."""

from contextlib import AbstractContextManager, nullcontext

import torch


def compute_dtype(device: torch.device) -> torch.dtype:
    """Returns bfloat16 on GPUs that support it, float16 on older GPUs, float32 on a CPU."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Returns the context in which the network runs; losses are computed outside it, in float32."""
    dtype = compute_dtype(device)
    return nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype=dtype)


def gradient_scaler(device: torch.device) -> torch.amp.GradScaler:
    """Returns the scaler that keeps float16 gradients above zero; it does nothing in the other precisions."""
    return torch.amp.GradScaler(device.type, enabled=compute_dtype(device) is torch.float16)


def sum_in_one_order() -> None:
    """Makes cuDNN sum in the same order each time, so that results repeat digit for digit.

    It costs no measurable time.
    """
    torch.backends.cudnn.deterministic = True
