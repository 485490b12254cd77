"""Images as a request brings them: one as the body, or several as a form; within limits, and refused with a reason."""

import asyncio
from dataclasses import asdict, dataclass

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect
from starlette.types import Message

from raysk.data.store.decoding import Pixels, decode_content
from raysk.errors import ConfigError

# What files of these types begin with. Pillow reads others too, some of them by starting a program.
_BEGINNINGS = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "TIFF": (b"II*\0", b"MM\0*"),
    "WebP": (b"RIFF",),
    "BMP": (b"BM",),
}
_OTHER_FIELDS = 16
_LONGEST_NAME = 100


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a service accepts.

    Args:
        request_bytes: Largest body of a request.
        image_bytes: Largest image file.
        images: Most images in a request.
        requests: Most requests at once; more are asked to come again.
        seconds: Longest time in which a body must arrive.

    Raises:
        ConfigError: A limit is not positive.
    """

    request_bytes: int = 32 * 2**20
    image_bytes: int = 16 * 2**20
    images: int = 32
    requests: int = 64
    seconds: float = 30

    def __post_init__(self) -> None:
        for name, limit in asdict(self).items():
            if limit <= 0:
                raise ConfigError(f"the limit on {name} must be positive, but got {limit}: choose a larger one")


@dataclass(frozen=True)
class Upload:
    """An image file of a request.

    Args:
        name: As the client calls it.
        content: Its bytes.
    """

    name: str
    content: bytes


async def read_uploads(request: Request, limits: Limits) -> list[Upload]:
    """Returns the image files of a request.

    Raises:
        HTTPException: There are none, or the request breaks a limit.
    """
    limited = Request(request.scope, _Counted(request, limits.request_bytes).receive)
    try:
        async with asyncio.timeout(limits.seconds):
            uploads = await _uploads(limited, limits)
    except TimeoutError:
        raise HTTPException(408, f"a request must arrive within {limits.seconds:g} seconds") from None
    except ClientDisconnect:
        raise HTTPException(400, "a request must arrive as a whole, but its connection ended") from None
    if not uploads:
        raise HTTPException(422, "a request must bring an image, but has none: send it as the body or in a form")
    for upload in uploads:
        if len(upload.content) > limits.image_bytes:
            raise HTTPException(
                413, f"{upload.name} has {len(upload.content):,} bytes, but at most {limits.image_bytes:,} are accepted"
            )
    return uploads


def pixels_of_upload(upload: Upload, sizes: tuple[int, ...], bits: int | None = None) -> list[Pixels]:
    """Returns the pixels of an image at every size; arguments as for `decode_content`.

    Raises:
        HTTPException: It is no image, of another type, damaged, or too large when decoded.
    """
    if not any(upload.content.startswith(beginnings) for beginnings in _BEGINNINGS.values()):
        raise HTTPException(415, f"{upload.name} must be one of {', '.join(_BEGINNINGS)}, but is not")
    pixels = decode_content(upload.content, sizes, bits)
    if isinstance(pixels, str):
        raise HTTPException(422, f"{upload.name} cannot be read: {pixels}")
    return pixels


class _Counted:
    """The body of a request, which ends with an error once it is longer than `most` bytes."""

    def __init__(self, request: Request, most: int) -> None:
        self._request, self._most, self._length = request, most, 0
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal():
            self._check(int(declared))

    async def receive(self) -> Message:
        message = await self._request.receive()
        self._length += len(message.get("body", b""))
        self._check(self._length)
        return message

    def _check(self, length: int) -> None:
        if length > self._most:
            raise HTTPException(413, f"a request must have at most {self._most:,} bytes, but this one has more")


async def _uploads(request: Request, limits: Limits) -> list[Upload]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("image/") or kind == "application/octet-stream":
        content = await request.body()
        return [Upload("the image", content)] if content else []
    if kind != "multipart/form-data":
        raise HTTPException(
            415, "a request must be an image (Content-Type: image/...) or a form (multipart/form-data) of image files"
        )
    async with request.form(max_files=limits.images, max_fields=_OTHER_FIELDS) as form:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        return [
            Upload((file.filename or f"image {place}")[:_LONGEST_NAME], await file.read())
            for place, file in enumerate(files)
        ]
