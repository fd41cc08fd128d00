"""Whether the output can be written at all, asked before the first row is scored."""

from __future__ import annotations

import pyarrow.fs as pafs

from batchscore.arrow.filesystem import open_filesystem
from batchscore.contracts import METADATA_FOLDER
from batchscore.errors import SettingsError, UnavailableError


def refuse_unwritable(uri: str, run_id: str) -> None:
    """Writes and removes an empty file under the table's metadata folder.

    Raises:
        SettingsError: the location does not take files: permission, a file in the way, a read-only disk.
        UnavailableError: the storage did not answer.
    """
    filesystem, root = open_filesystem(uri)
    folder = f"{root}/{METADATA_FOLDER}"
    probe = f"{folder}/.writable-{run_id}"
    try:
        filesystem.create_dir(folder, recursive=True)
        with filesystem.open_output_stream(probe):
            pass
        filesystem.delete_file(probe)
    except OSError as error:
        if not isinstance(filesystem, pafs.LocalFileSystem) and not isinstance(error, PermissionError):
            raise UnavailableError(f"the output {uri} could not be reached", found=error) from error
        raise SettingsError(
            f"the output {uri} cannot be written", found=error, hint="choose another path, or mend its permissions"
        ) from error
