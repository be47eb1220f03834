"""The rules of the code base that no other tool checks."""

import ast
import importlib
import inspect
import pickle
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

import gather_async
from gather_async import errors, models, resources
from gather_async.bulk import BulkInvite
from gather_async.errors import GatherError, WebhookFailure
from gather_async.webhooks import HandlerEnded
from gather_async.webhooks.events import EVENT_CLASSES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gather_async"
SOURCES = sorted(PACKAGE.rglob("*.py"))
LONGEST_MODULE = 400
# Where users meet names; the rest of the package may change without notice.
PUBLIC_PACKAGES = ["errors", "models", "resources", "webhooks", "bulk", "testing"]
ERROR_ARGUMENTS: dict[str, Any] = {
    "reason": WebhookFailure.TOO_OLD,
    "available_at": datetime(2025, 6, 1, tzinfo=UTC),
    "wait": 1.5,
    "host": "api.example",
    "is_permanent": True,
    "maybe_processed": True,
    "status": 418,
    "code": "TEAPOT",
    "message": "short and stout",
    "details": {"spout": 1},
    "request_id": "req_1",
    "body": "{}",
    "headers": {"x-teapot": "1"},
    "path": "$.data",
    "question": {"id": "q"},
    "waited": 2.5,
    "last": {"id": "i"},
}


@cache
def _nodes(path: Path) -> Sequence[ast.AST]:
    """Return all nodes of a module, its root first."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@pytest.fixture(scope="module", autouse=True)
def _forgotten_trees() -> Iterator[None]:
    """Free the 200,000 nodes, which each search for garbage would visit, after these tests."""
    yield
    _nodes.cache_clear()


def _relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _module_names() -> list[str]:
    """Return every module of the package but its entry point."""
    found = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES)
    return [name.removesuffix(".__init__") for name in found if not name.endswith("__main__")]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a new process, in the project's root."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_layers_import_only_from_below() -> None:
    """Arrows point down only, as import-linter's contracts in pyproject.toml say."""
    program = (
        "import sys; from importlinter.cli import lint_imports;"
        " sys.exit(lint_imports(no_cache=True))"
    )
    done = _run("-c", program)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_way_in_names_what_exists() -> None:
    """docs/contributing.md draws the contract's layers; its paths and classes are in the tree."""
    page = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    (drawn,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    assert [line.split() for line in drawn.splitlines()] == [each.split(" | ") for each in layers]
    paths = re.findall(r"`(\.?[a-z_]+/[\w./-]+)`", page)
    assert len(paths) > 40
    lost = [path for path in paths if not (ROOT / path).exists()]
    assert lost == [], "docs/contributing.md names what isn't there any more"
    code = "".join(source.read_text(encoding="utf-8") for source in SOURCES)
    words = re.findall(r"\(`([A-Z]\w+)`\)", page)
    assert len(words) > 10
    lost = [word for word in words if f"class {word}" not in code]
    assert lost == [], "docs/contributing.md names classes that aren't there any more"


def test_importing_the_package_imports_nothing_optional() -> None:
    """`import gather_async` works without extras, and loads no test double or command line."""
    unwanted = ["rich", "redis", "opentelemetry", "pytest", "phonenumbers", "gather_async.testing"]
    unwanted += ["gather_async.cli", "gather_async.redis", "gather_async.otel"]
    program = f"import sys, gather_async; print(*({set(unwanted)} & set(sys.modules)))"
    assert _run("-W", "error", "-c", program).stdout.strip() == ""


def test_importing_the_package_imports_nothing_of_it_yet() -> None:
    """`import gather_async` costs a program that never calls the API next to nothing."""
    program = (
        "import sys, gather_async;"
        " print(*sorted(name for name in sys.modules if name.startswith('gather_async')));"
        " print('aiohttp' in sys.modules or 'attrs' in sys.modules)"
    )
    assert _run("-c", program).stdout.split() == ["gather_async", "gather_async.version", "False"]


def test_importing_a_client_imports_nothing_that_only_some_calls_need() -> None:
    """What reads a response, a page, a phone number, people or the organization comes later."""
    later = ["cattrs", "html", "phonenumbers", "gather_async.bulk", "gather_async.webhooks"]
    later += ["gather_async.models.organization", "gather_async.resources.organization"]
    program = f"import sys, gather_async.client; print(*({set(later)} & set(sys.modules)))"
    assert _run("-c", program).stdout.strip() == ""


@pytest.mark.parametrize("package", [gather_async, models, resources], ids=lambda it: it.__name__)
def test_every_public_name_is_loaded_when_first_used(package: ModuleType) -> None:
    """Each name of `__all__` is there, and any other is refused."""
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = package.no_such_name


def test_public_packages_are_loaded_when_first_used() -> None:
    """They are attributes of the package, though no one imported them."""
    program = "import gather_async; print(gather_async.bulk.BulkInvite, gather_async.errors)"
    assert "BulkInvite" in _run("-c", program).stdout


def test_all_is_sorted_and_complete() -> None:
    """`__all__` names everything public that the module defines, in order, and nothing else."""
    for name in _module_names():
        module = importlib.import_module(name)
        exported = getattr(module, "__all__", None)
        if exported is None:
            continue  # a plugin's fixtures are found by pytest, and not imported
        assert list(exported) == sorted(set(exported)), name
        assert [each for each in exported if not hasattr(module, each)] == [], name
        defined = {
            each
            for each, value in vars(module).items()
            if not each.startswith("_")
            and (inspect.isclass(value) or inspect.isfunction(value))
            and value.__module__ == module.__name__
        }
        assert defined - set(exported) == set(), name


@pytest.mark.parametrize("source", [errors, models])
def test_the_package_exports_every_error_and_model(source: ModuleType) -> None:
    """What a user meets in an annotation or an except clause comes from `gather_async` itself."""
    public = set(getattr(source, "__all__", []))
    assert public
    assert public - set(getattr(gather_async, "__all__", [])) == set()


def test_modules_are_short() -> None:
    """One concept a file: none is longer than 400 lines."""
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert [path for path, length in lengths.items() if length > LONGEST_MODULE] == []


_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def _log_calls(path: Path) -> Iterator[ast.Call]:
    """Yield the calls of a module that write log records."""
    for node in _nodes(path):
        match node:
            case ast.Call(func=ast.Attribute(value=target, attr=name)) if name in _LEVELS:
                if ast.unparse(target).lower().endswith("_log"):
                    yield node


@pytest.mark.parametrize("folder", ["redis", "webhooks"])
def test_log_records_have_their_facts_as_fields(folder: str) -> None:
    """What a message names, or which error it is about, a formatter finds beside it."""
    calls = [(path, call) for path in SOURCES if folder in path.parts for call in _log_calls(path)]
    assert calls
    for path, call in calls:
        names_a_fact = len(call.args) > 1 or ast.unparse(call.func).endswith(".exception")
        has_fields = "extra" in {each.arg for each in call.keywords}
        assert has_fields or not names_a_fact, f"{_relative(path)}:{call.lineno}"


def test_fields_of_log_records_are_documented() -> None:
    """The page names each field that the code writes, and no other."""
    written = {f"gather_{each.name}" for each in attrs.fields(HandlerEnded)}
    written |= {"gather_operation", "gather_method", "gather_route"}  # of every request
    for call in (call for path in SOURCES for call in _calls_of(_nodes(path), "log_fields")):
        written |= {f"gather_{each.arg}" for each in call.keywords if each.arg}
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    table = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `gather_")]
    named = set(re.findall(r"`(gather_\w+)`", "".join(table)))
    assert written == named


def _drawn_tree() -> dict[str, str]:
    """Return child and parent of each name that the docstring of `errors` draws."""
    above: list[str] = []
    tree: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        drawn = re.match(r"    ((?:[│ ]   )*)(?:[├└]── )?([A-Z]\w+)", line)
        if drawn is None:
            continue
        is_root = "──" not in line
        depth = 0 if is_root else len(drawn[1]) // 4 + 1
        above[depth:] = [drawn[2]]
        if depth:
            tree[drawn[2]] = above[depth - 1]
    return tree


def _error_classes() -> list[type[GatherError]]:
    """Return every error class the module defines, the root first."""
    found = (getattr(errors, name) for name in errors.__all__)
    return [each for each in found if issubclass(each, GatherError)]


def test_the_drawn_error_tree_is_the_real_one() -> None:
    """The tree in the docstring of `errors` shows each class under its base."""
    real = {each.__name__: each.__bases__[0].__name__ for each in _error_classes()}
    assert real.pop("GatherError") == "Exception"
    assert _drawn_tree() == real


def test_the_drawn_error_tree_names_the_builtin_bases() -> None:
    """A class that is also a builtin error says so in the tree, and no other does."""
    builtin = {
        each.__name__: each.__bases__[1].__name__
        for each in _error_classes()
        if len(each.__bases__) > 1
    }
    drawn = re.findall(r"(\w+) \((\w+)\)", (errors.__doc__ or "").split("A message", 1)[0])
    assert dict(drawn) == builtin


@pytest.mark.parametrize("error", _error_classes(), ids=lambda error: error.__name__)
def test_errors_survive_pickling(error: type[GatherError]) -> None:
    """An error comes out of a process pool with its message and all its evidence."""
    wanted = inspect.signature(error.__init__).parameters.values()
    evidence = [each.name for each in wanted if each.kind is each.KEYWORD_ONLY]
    given = {name: ERROR_ARGUMENTS[name] for name in evidence}
    raised = error("Do this next.", **given)
    raised.pickles_body = True
    copy = pickle.loads(pickle.dumps(raised))
    assert type(copy) is error
    assert str(copy) == str(raised) == "Do this next."
    assert copy.__dict__ == raised.__dict__ == given | raised.__dict__


def _public_names() -> Iterator[tuple[str, Any]]:
    """Yield every class and function that a user may import, and its public methods."""
    packages = [gather_async]
    packages += [importlib.import_module(f"gather_async.{name}") for name in PUBLIC_PACKAGES]
    for package in packages:
        for name in getattr(package, "__all__", []):
            value = getattr(package, name)
            if inspect.isclass(value):
                for attribute, member in vars(value).items():
                    if not attribute.startswith("_") and inspect.isroutine(member):
                        yield f"{package.__name__}.{name}.{attribute}", member
            if callable(value):
                yield f"{package.__name__}.{name}", value


def test_everything_public_has_a_docstring() -> None:
    """Whatever a user can call explains itself in `help()`."""
    assert [name for name, value in _public_names() if not inspect.getdoc(value)] == []


_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _own_raises(node: ast.AST) -> Iterator[str]:
    """Yield the names of the errors that a function itself builds and raises."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Function | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
            yield ast.unparse(child.exc.func).rpartition(".")[2]
        yield from _own_raises(child)


def test_raised_errors_are_documented() -> None:
    """A public function names in its docstring each error that it raises itself."""
    silent = [
        f"{name}: {error}"
        for name, function in _public_names()
        if inspect.isfunction(function)
        for error in _own_raises(ast.parse(textwrap.dedent(inspect.getsource(function))).body[0])
        if error[0].isupper() and error not in (inspect.getdoc(function) or "")
    ]
    assert silent == []


def _calls_of(nodes: Iterable[ast.AST], name: str) -> Iterator[ast.Call]:
    """Yield the calls of a function by its plain name."""
    for node in nodes:
        match node:
            case ast.Call(func=ast.Name(id=called)) if called == name:
                yield node


def _type_checks(tree: ast.AST) -> Iterator[ast.Call]:
    return _calls_of(ast.walk(tree), "isinstance")


def test_a_boolean_is_excluded_from_the_numbers_in_one_place() -> None:
    """`validators` knows that a boolean is an int; elsewhere its checks are used."""
    mixed = [
        (_relative(path), ast.unparse(node))
        for path in SOURCES
        if path.name != "validators.py"
        for node in _nodes(path)
        if isinstance(node, ast.BoolOp)
        and any("bool" in ast.unparse(call) for call in _type_checks(node))
        and any("int" in ast.unparse(call.args[1]) for call in _type_checks(node))
    ]
    assert mixed == []


def test_the_client_takes_what_a_bulk_job_takes() -> None:
    """`bulk_invite` has the parameters of `BulkInvite`, in its order and with its defaults."""
    job = [*inspect.signature(BulkInvite.__init__).parameters.values()]
    method = [*inspect.signature(gather_async.GatherClient.bulk_invite).parameters.values()]
    described = [(each.name, each.kind, each.default) for each in job if each.name != "gather"]
    assert [(each.name, each.kind, each.default) for each in method] == described


def test_an_endpoint_is_made_in_one_place() -> None:
    """Resources and waits are handed their endpoint: none spells a collection a second time."""
    homes = {path for path in SOURCES for _ in _calls_of(_nodes(path), "Endpoint")}
    assert homes == {PACKAGE / "endpoint.py"}


def test_reading_one_object_is_written_once() -> None:
    """`Resource.get` is the only one, but for the interview's, which adds a parameter to it."""
    reading = {
        name
        for name in resources.__all__
        if "get" in vars(getattr(resources, name)) and name != "Pager"
    }
    assert reading == {"Resource", "Interviews"}


def _texts_of(path: Path) -> set[str]:
    """Return the texts in a module that are values, not docstrings or annotations."""
    annotations = {
        id(inner)
        for node in _nodes(path)
        if isinstance(node, ast.arg) and node.annotation is not None
        for inner in ast.walk(node.annotation)
    }
    return {
        node.value
        for node in _nodes(path)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in annotations
    }


def test_the_documented_events_are_named_once() -> None:
    """The classes in `webhooks.events` name them; the rest of the package asks the classes."""
    homes = {_relative(path) for path in SOURCES if _texts_of(path) & EVENT_CLASSES.keys()}
    assert homes == {"gather_async/webhooks/events.py"}


def test_the_documented_rate_limits_are_written_once() -> None:
    """`DEFAULT_RATE_LIMITS` is the only place where the package itself spells a `RateLimit`."""
    homes = {
        _relative(path)
        for path in SOURCES
        for call in _calls_of(_nodes(path), "RateLimit")
        if any(isinstance(each, ast.Constant) for each in call.args)
    }
    assert homes == {"gather_async/protocol/rolling_windows.py"}


def test_the_finished_statuses_are_listed_once() -> None:
    """No other module groups the statuses of a candidate interview into a set of its own."""
    named = "CandidateInterviewStatus.NEW_RESPONSE"
    homes = {_relative(path) for path in SOURCES if named in path.read_text(encoding="utf-8")}
    assert homes == {"gather_async/models/enums.py"}


def test_growing_pauses_are_computed_in_one_place() -> None:
    """`protocol.retry.backoff` is the only power with an exponent that grows."""
    homes = {
        path
        for path in SOURCES
        for node in _nodes(path)
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Pow)
        and not isinstance(node.right, ast.Constant)
    }
    assert homes == {PACKAGE / "protocol" / "retry.py"}


def _methods_called(path: Path) -> set[str]:
    """Return the names of the methods that a module calls."""
    return {
        node.func.attr
        for node in _nodes(path)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }


def test_whose_loop_it_is_is_asked_in_one_place() -> None:
    """`loops.LoopOwner` does; only the quota, which serves all loops at once, asks by itself."""
    homes = {_relative(path) for path in SOURCES if "is_running" in _methods_called(path)}
    assert homes == {"gather_async/loops.py", "gather_async/quota/call_queue.py"}


def test_a_sleep_that_an_event_ends_is_written_once() -> None:
    """No timer sets an event that is waited for: that is what `clock.wait` is for."""
    timers = [
        (_relative(path), ast.unparse(node))
        for path in SOURCES
        for node in _nodes(path)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("call_later")
        and len(node.args) > 1
        and ast.unparse(node.args[1]).endswith(".set")
    ]
    assert timers == []


def test_no_class_name_is_defined_twice() -> None:
    """One name has one meaning in the whole tree; only private names may stand for two things."""
    homes: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in _nodes(path):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(_relative(path))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_a_client_of_the_fake_server_is_made_by_the_server() -> None:
    """`FakeGather.client` connects the two; tests don't spell the connection out."""
    tests = sorted((ROOT / "tests").glob("[!t]*/**/test_*.py"))
    assert tests
    texts = ((path, path.read_text(encoding="utf-8")) for path in tests)
    made = [
        (_relative(path), ast.unparse(call))
        for path, text in texts
        if "api_key" in text  # parsing all takes half a second
        for call in _calls_of(ast.walk(ast.parse(text)), "GatherClient")
        if call.args and ast.unparse(call.args[0]) in {"fake.api_key", "fake_gather.api_key"}
    ]
    assert made == []


RIDDLES = re.compile(r"\b(told|nobody|somebody|whoever)\b|Tell whether", re.IGNORECASE)


def test_the_words_are_those_of_the_field() -> None:
    """Texts and names use the field's nouns, not persons who say or hear something."""
    named_so = {Path(__file__), ROOT / "tests" / "servers.py"}  # the latter: a user of the system
    texts = [
        path
        for folder in (PACKAGE, ROOT / "benchmarks", ROOT / "docs", ROOT / "tests")
        for path in sorted(folder.rglob("*"))
        if path.suffix in {".py", ".lua", ".md"} and path not in named_so
    ]
    found = [
        f"{_relative(path)}: {line}"
        for path in texts
        for line in path.read_text(encoding="utf-8").splitlines()
        if RIDDLES.search(line)
    ]
    assert found == []


def test_docstrings_open_with_a_noun() -> None:
    """No module or class is introduced by the question that it answers."""
    questions = {"How", "What", "When", "Where", "Whether", "Which", "Who", "Whose", "Why"}
    opening = [
        (_relative(path), (ast.get_docstring(node) or "").partition(" ")[0])
        for path in SOURCES
        for node in _nodes(path)
        if isinstance(node, ast.Module | ast.ClassDef)
    ]
    assert [(path, word) for path, word in opening if word in questions] == []
