"""Open sound files with libsndfile: quietly, from beginning to end, and with all of an MP3 file."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import soundfile

_SAID = re.compile(rb"\[?(src/)?libmpg123|Note: |Warning: |Error: ")  # how lines of libmpg123 begin
_SYNC = b"\xff\xe0"  # the first 11 bits of each frame of an MP3 file
_GUESSED = "bitrate mode   : constant"  # what libsndfile notes of a file without a table of contents
_SPARE = 4096  # bytes that may follow the last sample: frames of padding
_AT_MOST = 1 << 16  # bytes that a pipe holds
_alone = threading.RLock()  # a process has only one file descriptor 2


class ForwardFile(soundfile.SoundFile):
    """A file that is read from its beginning to its end.

    soundfile seeks after each block, which changes the next samples of an MP3 file in the last bit
    and hides damage in Ogg files.

    Attributes:
        decoded: samples read so far.
        descriptor: of an MP3 file that was opened by path.
    """

    decoded = 0
    descriptor: int | None = None

    def seekable(self) -> bool:
        """Return that there is no seeking."""
        return False

    def goes_on(self) -> bool:
        """Tell whether an MP3 file has audio after the length in its header, all of which was read.

        Without a table of contents (Xing), a file of varying bit rate states a guess, and
        libsndfile reads no further.
        """
        if self.descriptor is None or self.decoded < self.frames:
            return False
        place = os.lseek(self.descriptor, 0, os.SEEK_CUR)
        first, second = (*os.pread(self.descriptor, 2, place), 0, 0)[:2]
        sync = first == _SYNC[0] and second & _SYNC[1] == _SYNC[1]
        return sync and os.fstat(self.descriptor).st_size - place > _SPARE

    def is_guess(self) -> bool:
        """Tell whether an MP3 file was decoded to its end, and its length was only a guess.

        Without a table of contents, libmpg123 divides the file's bytes by the bit rate, and tags
        count as audio.
        """
        if self.descriptor is None or _GUESSED not in self.extra_info:
            return False
        return os.lseek(self.descriptor, 0, os.SEEK_CUR) >= os.fstat(self.descriptor).st_size


def open_forward(source: Any) -> ForwardFile:
    """Open a path or a binary file object.

    Raises:
        soundfile.LibsndfileError: it is not a sound file.
    """
    file = ForwardFile(source)
    if file.format != "MP3" or not isinstance(source, str):
        return file
    descriptor = os.open(source, os.O_RDONLY)
    try:
        again = ForwardFile(descriptor, closefd=True)
    except soundfile.LibsndfileError:  # without a name, libsndfile wants a frame at the very beginning
        return file  # libsndfile has closed the descriptor
    file.close()
    again.descriptor = descriptor
    return again


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Keep what libmpg123 writes to file descriptor 2 while a header or a frame is read.

    libsndfile offers no other way to silence it. Other lines, such as those of another thread, are
    written on.

    Yields:
        a list, which has the lines of libmpg123 after the block.
    """
    said: list[str] = []
    with _alone:
        try:
            stderr = os.dup(2)
        except OSError:  # the process has none
            yield said
            return
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)  # when it is full, further lines are lost
        os.dup2(writing, 2)
        os.close(writing)
        try:
            yield said
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            try:
                written = os.read(reading, _AT_MOST)
            except BlockingIOError:  # a process that was started in the block keeps the pipe open
                written = b""
            os.close(reading)
            if written:
                _sort(written, said)


def _sort(written: bytes, said: list[str]) -> None:
    """Add libmpg123's lines to ``said``, and write the others to stderr."""
    for line in written.splitlines(keepends=True):
        if _SAID.match(line):
            said.append(line.decode("utf-8", "replace").strip())
        elif line.strip():
            os.write(2, line)
