"""docs/external-files.md is gone through from top to bottom, and names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import running

from llmartifacts import errors
from llmartifacts.outbound import addresses, local
from llmartifacts.records.external import SCHEMES


@pytest.mark.slow
def test_the_page_is_run_as_it_is_written(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "srv"
    place.mkdir()
    replaced = {"/srv/data": str(place)}
    with running.opened(repository / "docs" / "external-files.md", tmp_path, {}, replaced) as page:
        assert page.run() >= 3


def test_the_page_names_every_scheme_variable_and_error_that_there_is(repository: Path) -> None:
    text = (repository / "docs" / "external-files.md").read_text()
    assert set(re.findall(r"^\| `(\w+)://", text, re.MULTILINE)) | {"file"} == set(SCHEMES)
    for variable in (addresses.VARIABLE, addresses.REDIRECTS, local.VARIABLE):
        assert variable in text
    told = "".join(re.findall(r"^\| [^`|]+ \| (.*?) \|", text, re.MULTILINE))
    named = set(re.findall(r"`([a-z_]+)`", told))
    assert named == {"digest_mismatch", "blob_missing", "not_allowed", "unreachable", "deadline_exceeded"}
    assert named <= {getattr(one, "code", "") for one in vars(errors).values()}
