"""The knowledge base of the demo: the documentation strings of Python's standard library, as passages.

Every machine that runs Python has this text, so the demo needs no download. Each public function, class and method
becomes one passage; its id is the name a programmer would write, such as `shutil.copytree` or `str.split`.
"""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

_CORE = """
builtins string re textwrap difflib unicodedata struct codecs datetime zoneinfo calendar collections collections.abc
heapq bisect array weakref types copy pprint reprlib enum graphlib numbers math cmath decimal fractions random
statistics itertools functools operator json csv configparser tomllib pickle base64 binascii hashlib hmac secrets html
html.parser xml.etree.ElementTree dataclasses contextlib abc typing inspect ast traceback warnings unittest
unittest.mock doctest pdb keyword tokenize dis contextvars plistlib colorsys stringprep shelve
"""
_SYSTEM = """
os os.path pathlib shutil tempfile glob fnmatch filecmp fileinput stat io time argparse optparse getopt logging
logging.config logging.handlers getpass platform sys errno subprocess threading multiprocessing multiprocessing.pool
multiprocessing.shared_memory concurrent.futures queue sched asyncio socket ssl select selectors signal mmap
email.message email.utils email.mime.multipart urllib.request urllib.parse urllib.error http http.client http.server
http.cookies http.cookiejar ftplib poplib imaplib smtplib socketserver xmlrpc.client wsgiref.simple_server sqlite3 zlib
gzip bz2 lzma zipfile tarfile uuid ipaddress locale gettext venv timeit cProfile pstats trace tracemalloc gc atexit
importlib importlib.metadata importlib.resources importlib.util pkgutil runpy site sysconfig zipapp webbrowser cmd shlex
mimetypes linecache faulthandler code codeop compileall py_compile symtable pyclbr netrc quopri mailbox
"""
CORE = tuple(_CORE.split())
"""The first state of the knowledge base: the language, text, data and numbers."""
SYSTEM = tuple(_SYSTEM.split())
"""What the second state adds: files, processes, the network and the tools around the interpreter."""

PASSAGE_CHARS = 1600
"""Longer documentation is cut at blank lines into passages of about this many characters."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass(frozen=True, slots=True)
class Passage:
    """One piece of documentation.

    Attributes:
        id: The name it documents, such as `shutil.copytree`; later pieces of a long text end in `#2`, `#3`, ….
        text: The name with its signature, and the documentation.
        module: The module that has it.
        sort: `module`, `class`, `function` or `method`.
    """

    id: str
    text: str
    module: str
    sort: str


def read_passages(modules: Sequence[str]) -> list[Passage]:
    """Passages of the modules, by id; a module that this Python was built without is left out.

    Args:
        modules: Names of standard library modules; they are imported.
    """
    loaded = [(name, module) for name in modules if (module := _import(name)) is not None]
    listed = [(name, attribute, value) for name, module in loaded for attribute, value in _members(name, module)]
    classes = {id(value) for _, _, value in listed if inspect.isclass(value)}
    made: dict[str, Passage] = {}
    seen: set[int] = set()

    def add(name: str, value: Any, module: str, sort: str) -> None:
        # One function may have several names; the first module of the list that shows it gives it its id.
        if id(value) not in seen and name not in made:
            seen.add(id(value))
            for passage in _cut(name, value, module, sort):
                made[passage.id] = passage

    for name, module in loaded:
        add(name, module, name, "module")
    for module_name, attribute, value in listed:
        full = attribute if module_name == "builtins" else f"{module_name}.{attribute}"
        if not inspect.isclass(value):
            add(full, value, module_name, "function")
        elif id(value) not in seen:
            add(full, value, module_name, "class")
            for method, routine in _methods(value, classes):
                add(f"{full}.{method}", routine, module_name, "method")
    return [made[key] for key in sorted(made)]


def _import(name: str) -> ModuleType | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated modules say so when they are imported
        try:
            return importlib.import_module(name)
        except ImportError:
            return None


def _members(name: str, module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Public functions and classes of a module, by name."""
    promised = getattr(module, "__all__", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {a: getattr(module, a, None) for a in sorted(promised if promised is not None else dir(module))}
    # Of several names of one object, the one it was defined under comes first.
    for attribute, value in sorted(found.items(), key=lambda item: getattr(item[1], "__name__", "") != item[0]):
        if attribute.startswith("_") or not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        home = getattr(value, "__module__", None) or name
        if promised is not None or home == name or home.lstrip("_").startswith(name):
            yield attribute, value


def _methods(cls: type, public: set[int]) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that a class defines itself, or has from bases that are no public class."""
    own = [base for base in cls.__mro__ if base is cls or (id(base) not in public and base is not object)]
    for name in sorted({name for base in own for name in vars(base) if not name.startswith("_")}):
        value = next(vars(base)[name] for base in own if name in vars(base))
        value = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if inspect.isroutine(value) or isinstance(value, property) or inspect.isdatadescriptor(value):
            yield name, value


def _cut(name: str, value: Any, module: str, sort: str) -> Iterator[Passage]:
    doc = inspect.getdoc(value)
    if not doc or doc == inspect.getdoc(type(value)):  # an instance shows its class's words
        return
    doc = _ADDRESS.sub("", doc)
    head = name + _signature(value) if sort != "module" else f"module {name}"
    for number, piece in enumerate(_pieces(doc, PASSAGE_CHARS), start=1):
        yield Passage(name if number == 1 else f"{name}#{number}", f"{head}\n{piece}", module, sort)


def _signature(value: Any) -> str:
    """A signature without annotations, and with those defaults only that look the same in every process."""
    try:
        signature = inspect.signature(value)
    except (ValueError, TypeError, NameError):
        return ""
    bare = inspect.Parameter.empty
    shown = [
        p.replace(annotation=bare, default=p.default if p.default is bare else _default(p.default))
        for p in signature.parameters.values()
    ]
    text = str(signature.replace(parameters=shown, return_annotation=bare))
    return text if len(text) <= 240 else f"{text[:239]}…"


class _Ellipsis:
    def __repr__(self) -> str:
        return "…"


def _default(value: Any) -> Any:
    plain = value is None or isinstance(value, str | bytes | int | float | complex)
    return value if plain or value == () else _Ellipsis()


def _pieces(text: str, size: int) -> Iterable[str]:
    """A text cut at blank lines, each piece at most `size` characters where its paragraphs allow it."""
    piece = ""
    for paragraph in text.split("\n\n"):
        if piece and len(piece) + len(paragraph) + 2 > size:
            yield piece
            piece = ""
        piece = f"{piece}\n\n{paragraph}" if piece else paragraph
    yield piece
