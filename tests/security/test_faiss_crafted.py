"""Crafted index files that name another file: refused before FAISS sees them, and the file they name is never opened.

On-disk inverted lists (`ilod`) hold the name of the file with their rows, which FAISS maps and hands out as vectors.
They are nested here in every index type that holds another one, and in coarse quantizers, which FAISS reads without
the flags that would stop it.
"""

import json
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest

from llmartifacts.errors import UnsafeContent
from llmartifacts.formats.faiss import walk
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.guard import open_index
from llmartifacts.kinds.vector_index.kind import VectorIndexKind
from llmartifacts.kinds.vector_index.source import read_source
from llmartifacts.kinds.vector_index.value import VectorIndex
from llmartifacts.testing.kinds import pack

D, N = 8, 10
SECRET = b"TOKEN=sk-live-0123456789abcdef\n" * 60


# --- a writer of FAISS files, good and bad


def header(count=N, dimension=D):
    return struct.pack("<iqqq?i", dimension, count, 1 << 20, 1 << 20, True, 1)


def array(data, width):
    return struct.pack("<Q", len(data) // width) + data


def flat(count=N):
    return b"IxF2" + header(count) + array(np.arange(count * D, dtype="<f4").tobytes(), 4)


def lists_in_file(count=N, code=4 * D):
    sizes = array(struct.pack("<QQ", count, 0), 8)
    return b"ilar" + struct.pack("<QQ", 2, code) + b"full" + sizes + bytes(count * code) + np.arange(count).tobytes()


def lists_on_disk(target, code=4 * D, count=5):
    name = target.encode()
    places = array(struct.pack("<QQQQQQ", count, count, 0, count, count, 200), 24)
    return (
        b"ilod" + struct.pack("<QQ", 2, code) + places + struct.pack("<Q", 0) + array(name, 1)
        + struct.pack("<Q", len(SECRET))
    )  # fmt: skip


def ivf(lists, quantizer=None, count=N, tag=b"IwFl", middle=b""):
    return (
        tag + header(count) + struct.pack("<QQ", 2, 1) + (quantizer or flat(2)) + b"\0" + array(b"", 8) + middle + lists
    )


def id_map(inner, count=N, tag=b"IxMp"):
    return tag + header(count) + inner + array(np.arange(count).tobytes(), 8)


def pre_transform(inner, count=N):
    norm = b"VNrm" + struct.pack("<fii?", 2.0, D, D, True)
    return b"IxPT" + header(count) + struct.pack("<i", 1) + norm + inner


def refine(base, exact):
    return b"IxRF" + header() + base + exact + struct.pack("<f", 1.0)


def graph(storage, count=N):
    parts = [
        array(struct.pack("<d", 1.0), 8),
        array(struct.pack("<ii", 0, 4), 4),
        array(np.ones(count, "<i4").tobytes(), 4),
        array((np.arange(count + 1, dtype="<u8") * 4).tobytes(), 8),
        array(np.full(4 * count, -1, "<i4").tobytes(), 4),
        struct.pack("<iiiii", 0, 0, 40, 16, 1),
    ]
    return b"IHNf" + header(count) + b"".join(parts) + storage


def scalar():
    quantizer = struct.pack("<iifQQ", 0, 0, 0.0, D, D) + array(np.zeros(2 * D, "<f4").tobytes(), 4)
    return quantizer + struct.pack("<Q?", D, False)


def product():
    centroids = array(np.zeros(D * 16, "<f4").tobytes(), 4)
    return struct.pack("<?Q", False, 1) + struct.pack("<QQQ", D, 2, 4) + centroids


def nestings(target):
    """Name -> file with on-disk lists that name the target."""
    bad = ivf(lists_on_disk(target))
    small = ivf(lists_on_disk(target, count=1), count=2)  # of two vectors: fits as a coarse quantizer of two lists
    return {
        "ivf": bad,
        "ivf-sq8": ivf(lists_on_disk(target, D), tag=b"IwSq", middle=scalar()),
        "ivf-pq": ivf(lists_on_disk(target, 1), tag=b"IwPQ", middle=product()),
        "idmap(ivf)": id_map(bad),
        "idmap2(ivf)": id_map(bad, tag=b"IxM2"),
        "idmap(idmap(ivf))": id_map(id_map(bad)),
        "pretransform(ivf)": pre_transform(bad),
        "pretransform(idmap(ivf))": pre_transform(id_map(bad)),
        "refine(base=ivf)": refine(bad, flat()),
        "refine(refine=ivf)": refine(flat(), bad),
        "hnsw(storage=ivf)": graph(bad),
        "rowwise(ivf)": b"IRMf" + header() + bad,
        "independent(ivf)": b"IwIQ" + header() + flat(2) + b"\0" + bad,
        "ivf(quantizer=ivf)": ivf(lists_in_file(), quantizer=small),
        "ivf(quantizer=idmap(ivf))": ivf(lists_in_file(), quantizer=id_map(small, 2)),
        "ivf(quantizer=pretransform(ivf))": ivf(lists_in_file(), quantizer=pre_transform(small, 2)),
        "ivf(quantizer=hnsw(ivf))": ivf(lists_in_file(), quantizer=graph(small, 2)),
        "idmap(ivf(quantizer=ivf))": id_map(ivf(lists_in_file(), quantizer=small)),
        "ivf-sq8(quantizer=ivf)": ivf(lists_in_file(code=D), quantizer=small, tag=b"IwSq", middle=scalar()),
        "ivf-pq(quantizer=ivf)": ivf(lists_in_file(code=1), quantizer=small, tag=b"IwPQ", middle=product()),
    }


NAMES = sorted(nestings("x"))


@pytest.fixture
def folder(tmp_path):
    """Every nesting, naming its victim by an absolute path, a bare name, and a path that climbs."""
    (tmp_path / "sub").mkdir()
    for victim in (tmp_path / "victim.env", tmp_path / "sub" / "victim.env"):
        victim.write_bytes(SECRET)
    targets = {"absolute": f"{tmp_path}/victim.env", "bare": "victim.env", "climbing": "sub/../victim.env"}
    for form, target in targets.items():
        for name, body in nestings(target).items():
            (tmp_path / f"{form}-{name}.faiss").write_bytes(body)
    return tmp_path


# --- refused


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_names_another_is_refused_by_the_walk(name):
    with pytest.raises(UnsafeContent, match=r"ilod|is not allowed|not that of the index around it"):
        walk(nestings("/etc/passwd")[name])


def test_the_writer_of_these_tests_writes_what_faiss_reads(tmp_path):
    """Without the on-disk lists the same structures are taken, so it is these lists that are refused."""
    sound = {
        "ivf": ivf(lists_in_file()),
        "sq8": ivf(lists_in_file(code=D), tag=b"IwSq", middle=scalar()),
        "pq": ivf(lists_in_file(code=1), tag=b"IwPQ", middle=product()),
        "idmap": id_map(ivf(lists_in_file())),
        "pre": pre_transform(id_map(ivf(lists_in_file()))),
        "refine": refine(ivf(lists_in_file()), flat()),
        "graph": graph(flat()),
        "quantizer": ivf(lists_in_file(), quantizer=graph(flat(2), 2)),
    }
    for name, body in sound.items():
        (tmp_path / name).write_bytes(body)
        assert open_index(tmp_path / name).index.ntotal == N, name


def test_it_is_refused_at_every_door(folder):
    spec = EmbeddingSpec("m", D, "l2")
    texts = [str(i) for i in range(N)]
    (folder / "documents.jsonl").write_text("".join(f'{{"text": "{t}"}}\n' for t in texts))
    kind = VectorIndexKind()
    manifest, files = pack(kind, VectorIndex.from_vectors(np.eye(N, D, dtype="f4"), texts, embedding=spec))
    for path in folder.glob("*.faiss"):
        for door in (
            lambda path=path: open_index(path),
            lambda path=path: VectorIndex.from_faiss(path, texts, embedding=spec),
            lambda path=path: read_source([path, folder / "documents.jsonl"], {"model": "m"}),
            lambda path=path: kind.unpack(manifest.config, files.replaced("index.faiss", path.read_bytes())),
        ):
            with pytest.raises(UnsafeContent):
                door()


# --- the file that is named is never opened


GUARDED = """
import json, pathlib, sys
from llmartifacts.errors import UnsafeContent
from llmartifacts.kinds.vector_index.guard import open_index
refused = 0
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.faiss")):
    try:
        open_index(path)
    except UnsafeContent:
        refused += 1
print(json.dumps(refused))
"""
BARE = """
import pathlib, sys
import faiss, numpy as np
kept = []
for name in sys.argv[2:]:
    data = np.fromfile(pathlib.Path(sys.argv[1]) / name, np.uint8)
    try:
        kept.append(faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(data), data.size), int(0)))
    except RuntimeError as error:
        print(str(error)[-200:])
    try:
        flags = faiss.IO_FLAG_ONDISK_SAME_DIR
        kept.append(faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(data), data.size), flags))
    except RuntimeError as error:
        print(str(error)[-200:])
sys.stdout.flush()
import os; os._exit(0)
"""


def traced(code, folder, *arguments):
    """Run code under strace; returns what it printed and every line of a file that was opened."""
    log = folder / "trace.log"
    command = ["strace", "-f", "-s", "4096", "-e", "trace=open,openat,openat2,creat", "-o", str(log)]
    ran = subprocess.run(
        [*command, sys.executable, "-c", code, str(folder), *arguments], capture_output=True, text=True, cwd=folder
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout, log.read_text(errors="replace").splitlines()


@pytest.fixture
def strace():
    if shutil.which("strace") is None:
        pytest.skip("STRACE IS NOT INSTALLED: that a named file is never opened was not proven here")
    if subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode:
        pytest.skip("STRACE MAY NOT TRACE HERE: that a named file is never opened was not proven")


def test_the_kernel_sees_no_attempt_to_open_a_named_file(folder, strace):
    printed, opened = traced(GUARDED, folder)
    count = len(list(folder.glob("*.faiss")))
    assert json.loads(printed) == count == 3 * len(NAMES)
    assert sum(".faiss" in line for line in opened) == count, "the trace sees the index files themselves"
    assert not [line for line in opened if "victim" in line]


def test_without_the_walk_faiss_does_open_it(folder, strace):
    """The control: these files are dangerous, and FAISS's own flag does not help inside a coarse quantizer."""
    for name, opens in (("absolute-ivf.faiss", 1), ("absolute-ivf(quantizer=ivf).faiss", 2)):
        _, opened = traced(BARE, folder, name)
        assert sum("victim" in line for line in opened) >= opens, name


# --- loading runs nothing


AUDITED = """
import json, pathlib, sys
import numpy as np
from llmartifacts.errors import LlmartifactsError
from llmartifacts.kinds.vector_index import langchain, making, source
from llmartifacts.kinds.vector_index.config import EmbeddingSpec
from llmartifacts.kinds.vector_index.kind import VectorIndexKind
from llmartifacts.kinds.vector_index.value import VectorIndex
from llmartifacts.testing.kinds import pack

folder = pathlib.Path(sys.argv[1])
kind = VectorIndexKind()
spec = EmbeddingSpec("m", 8, "l2")
value = VectorIndex.from_vectors(np.eye(10, 8, dtype="f4"), [str(i) for i in range(10)], embedding=spec)
manifest, files = pack(kind, value)
for path in files.paths():
    files.as_path(path)
kind.unpack(manifest.config, files).search([[1.0] * 8], 3)      # everything that is imported late is imported now
bad = [files.replaced("index.faiss", p.read_bytes()) for p in sorted(folder.glob("*.faiss"))]
junk = b"\\x80\\x04\\x8c\\x05posix\\x94\\x8c\\x06system\\x94\\x93\\x94\\x8c\\x02id\\x94\\x85\\x94R\\x94."
bad += [files.replaced(path, junk) for path in files.paths()]
for view in bad:
    for path in view.paths():
        view.as_path(path)
places = {str(files._folder), *(str(view._folder) for view in bad)}

seen = []
sys.addaudithook(lambda event, given: seen.append((event, str(given[0]) if given else "")))
kind.unpack(manifest.config, files).search([[1.0] * 8], 3)
refused = 0
for view in bad:
    try:
        kind.unpack(manifest.config, view)
    except LlmartifactsError:
        refused += 1
done, seen = seen, []
print(json.dumps({
    "refused": refused, "bad": len(bad),
    "events": sorted({e for e, _ in done}),
    "outside": sorted({g for e, g in done if e == "open" and str(pathlib.Path(g).parent) not in places}),
}))
"""


def test_loading_good_and_hostile_artifacts_runs_nothing(folder):
    """Every audit event of the interpreter while artifacts are unpacked: files of the artifact, and nothing else."""
    ran = subprocess.run([sys.executable, "-c", AUDITED, str(folder)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["refused"] == told["bad"] == 3 * len(NAMES) + 5
    assert told["outside"] == []
    assert set(told["events"]) <= {"open", "fcntl.flock", "mmap.__new__", "object.__getattr__", "object.__setattr__"}, (
        told["events"]
    )
