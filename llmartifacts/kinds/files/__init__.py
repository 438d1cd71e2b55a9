"""The kind `files`: any files or folder, and references to files that stay elsewhere, pinned by checksum.

Example:
    >>> Files({"notes/a.txt": b"hello"}).read("notes/a.txt")
    b'hello'
"""

from llmartifacts.kinds.files.external import External as External
from llmartifacts.kinds.files.kind import FilesConfig as FilesConfig
from llmartifacts.kinds.files.kind import FilesKind as FilesKind
from llmartifacts.kinds.files.value import Files as Files
