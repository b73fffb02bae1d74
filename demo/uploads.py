"""Limits, reads and deletes uploads; replaces the parts of Gradio that have no setting for this."""

import contextlib
import secrets
import shutil
import time
import weakref
from pathlib import Path
from typing import Any

import gradio as gr
import safehttpx
import soundfile
from fastapi import HTTPException, Request, Response
from fastapi.responses import JSONResponse
from gradio import queueing, route_utils
from gradio.utils import get_upload_folder
from starlette.requests import ClientDisconnect

from core.errors import InputError
from recording_ser_align import describe_recording, read_samples

MAX_MEGABYTES, MAX_MINUTES = 30, 10
ADVICE = f"upload a recording of up to {MAX_MEGABYTES} MB and {MAX_MINUTES} minutes"
MAX_WAITING = 20  # visitors in the queue
QUEUE_IS_FULL = f"{MAX_WAITING} visitors are already waiting; try again in a minute"
MAX_IDLE = 900  # seconds that an upload is kept if its visitor never asks for an answer


# ------------------------------------------------------------------------------------------- reading


def check_recording(path: str) -> None:
    """Decode an upload, whose header may be wrong, to see that it is within the limits before anything is computed.

    Raises:
        InputError: the file is gone, too large or too long.
        ValueError: it cannot be read as audio.
    """
    if not Path(path).is_file():
        raise InputError(f"{describe_recording(path)} is no longer on the server; upload it again")
    if (megabytes := Path(path).stat().st_size / 1e6) > MAX_MEGABYTES:
        raise InputError(f"{describe_recording(path)} is {megabytes:.1f} MB; {ADVICE}")
    samples, seconds = read_samples(path), 0.0
    for block in samples.blocks:
        seconds += len(block) / samples.rate
        if seconds > 60 * MAX_MINUTES:
            raise InputError(f"{describe_recording(path)} is {describe_length(path)} long; {ADVICE}")


def describe_length(path: str) -> str:
    """Describe the length of a recording over the limit; it is exact only if the header states it."""
    with contextlib.suppress(soundfile.LibsndfileError, RuntimeError):
        return f"{soundfile.info(path).duration / 60:.1f} minutes"
    return f"more than {MAX_MINUTES} minutes"


# ------------------------------------------------------------------------------------------ deleting


def delete_upload(path: str) -> None:
    """Delete an upload and its folder, which contains nothing else."""
    with contextlib.suppress(OSError):
        Path(path).unlink()
        Path(path).parent.rmdir()


def delete_sent_upload(data: Any) -> None:
    """Delete the upload in the data of a request, if there is one; requests for examples have none."""
    with contextlib.suppress(KeyError, TypeError, ValueError):
        (sent,) = data
        path = Path(sent["path"]).resolve()
        if Path(get_upload_folder()).resolve() in path.parents:
            delete_upload(str(path))


def delete_idle_uploads(folder: Path, seconds: float) -> None:
    """Delete the subfolders that have not changed for this long."""
    for path in folder.glob("*"):
        with contextlib.suppress(OSError):  # deleted in the meantime
            if time.time() - path.stat().st_mtime > seconds:
                shutil.rmtree(path)


def watch_uploads() -> None:
    """Delete idle uploads every minute, in an endless loop.

    Gradio's `delete_cache` stops permanently if an upload arrives while it checks.
    """
    while True:
        time.sleep(60)
        delete_idle_uploads(Path(get_upload_folder()), MAX_IDLE)


# ------------------------------------------------------------------------------------------- refusing


async def refuse_when_full(request: Request, error: HTTPException) -> Response:
    """State the limit, where Gradio would only say that it is busy, and delete the upload."""
    delete_sent_upload((await request.json()).get("data"))
    return JSONResponse({"detail": QUEUE_IS_FULL}, status_code=429)


async def ignore_disconnect(request: Request, error: ClientDisconnect) -> Response:
    """Print no traceback if a visitor leaves during an upload."""
    return Response()


# Functions that Gradio's server calls on errors, by HTTP status or class.
EXCEPTION_HANDLERS: dict[Any, Any] = {503: refuse_when_full, ClientDisconnect: ignore_disconnect}


# ---------------------------------------------------------------------------------- hardening Gradio


def harden_gradio() -> None:
    """Replace the parts of Gradio that lack a setting; call once, before the page is built."""
    route_utils.GradioUploadFile = PrivateUpload  # type: ignore[misc]
    queueing.Queue = TidyQueue  # type: ignore[misc]
    # Everything that Gradio fetches goes through one of these.
    safehttpx.get = safehttpx.async_validate_url = refuse_url


class PrivateUpload(route_utils.GradioUploadFile):
    """An upload in its own folder, which is deleted if the upload is aborted.

    Gradio names the folder after the content alone: two visitors with the same recording would share one file, which
    is deleted after the first result.
    """

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self.sha.update(secrets.token_bytes(32))
        weakref.finalize(self, Path(self.file.name).unlink, missing_ok=True)  # a complete upload has been moved by then


class TidyQueue(queueing.Queue):
    """A queue that deletes the upload of a visitor who leaves it."""

    async def clean_events(self, *, session_hash: str | None = None, event_id: str | None = None) -> None:
        waiting = [event for part in self.event_queue_per_concurrency_id.values() for event in part.queue]
        await super().clean_events(session_hash=session_hash, event_id=event_id)
        for event in waiting:
            if (event.session_hash == session_hash or event._id == event_id) and event.data is not None:
                delete_sent_upload(event.data.data)


async def refuse_url(*_: Any, **__: Any) -> Any:
    """Refuse URLs: the server would fetch them from anywhere, even from its own network."""
    raise gr.Error("URLs are not supported; upload a file")
