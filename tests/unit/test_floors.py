"""The house stands: imports point down, each library has one home, and nothing hides pymilter's C module `milter`."""

import ast
import os
import subprocess
import sys
from configparser import ConfigParser
from graphlib import TopologicalSorter
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FLOORS = [
    # floor, package, modules; from the ground up, and what stands on a later floor may not be imported
    ("0", "dnsbl_policy", "actions answers codes lists points toml"),
    ("1", "dnsbl_policy", "allow catalog greylist health interval proof relevance scoring shares symptoms"),
    ("2", "dnsbl_milter", "access advice board breaker cache cf configuration effective faults inquiry listen listing log mc metrics nameserver"),
    ("2", "dnsbl_milter", "notify page pauses probe prober prover repeats replies resolver scratch settings sockets standing"),
    ("2", "dnsbl_milter", "today values wire"),
    ("2", "dnsbl_milter", "memory memory_engine memory_file memory_redis memory_sqlite"),
    ("3", "dnsbl_milter", "asked case diagnosis explain host_checks importing nameserver_checks patient session survey takeover translation"),
    ("3, above its sessions", "dnsbl_milter", "worker"),
    ("4", "dnsbl_milter", "child monitor watch"),
    ("4, above its children", "dnsbl_milter", "generation lineage supervisor"),
    ("5", "dnsbl_milter", "__main__ cli cli.common cli.config cli.doctor cli.explain cli.imports cli.lists cli.memory cli.pauses cli.run"),
]

HOMES = {
    # library: the modules that may know it; sqlite3 counts as one, though Python brings it
    "Milter": "dnsbl_milter.session dnsbl_milter.takeover dnsbl_milter.worker",
    "cachetools": "dnsbl_milter.cache",
    "click": "dnsbl_milter.cli dnsbl_milter.cli.common dnsbl_milter.cli.config dnsbl_milter.cli.doctor dnsbl_milter.cli.explain"
    " dnsbl_milter.cli.imports dnsbl_milter.cli.lists dnsbl_milter.cli.memory dnsbl_milter.cli.pauses dnsbl_milter.cli.run",
    "dns": "dnsbl_milter.nameserver",
    "prometheus_client": "dnsbl_milter.metrics",
    "pydantic": "dnsbl_milter.settings",
    "redis": "dnsbl_milter.memory_redis",
    "rich": "dnsbl_milter.cli.common",
    "sqlite3": "dnsbl_milter.memory_file dnsbl_milter.memory_sqlite",
}

PURE = frozenset({"collections", "dataclasses", "decimal", "enum", "functools", "ipaddress", "itertools", "re", "statistics", "tomllib", "typing"})
"""All that the policy needs of Python: nothing that opens, sends, waits, logs, runs beside it, draws lots or tells the time."""

IMPURE_CALLS = frozenset({"__import__", "breakpoint", "compile", "eval", "exec", "input", "open", "print"})

ROOTS = {"dnsbl_policy": ROOT / "policy", "dnsbl_milter": ROOT / "milter"}


def modules_on_disk() -> dict[str, Path]:
    """Return each module of both packages by its dotted name; a package goes by its own."""
    found = {}
    for package, root in ROOTS.items():
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules_on_disk()
TREES = {name: ast.parse(path.read_text("utf-8"), str(path)) for name, path in MODULES.items()}
STOREYS = list(dict.fromkeys(floor for floor, _, _ in FLOORS))
HEIGHT = {
    **dict.fromkeys(ROOTS, -1),
    **{f"{package}.{name}": STOREYS.index(floor) for floor, package, names in FLOORS for name in names.split()},
}


def imported(tree: ast.AST, package: str) -> set[str]:
    """Return the dotted names that a module imports, anywhere in it; `package` is what its dots start from."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{origin}.{alias.name}"
                found.add(whole if whole in MODULES else origin)
    return found


IMPORTS = {
    name: imported(tree, name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0])
    for name, tree in TREES.items()
}
OURS = {name: {other for other in others if other.split(".")[0] in ROOTS} for name, others in IMPORTS.items()}
FOREIGN = {name: {other.split(".")[0] for other in others - OURS[name]} for name, others in IMPORTS.items()}

each_module = pytest.mark.parametrize("module", sorted(MODULES.keys() & HEIGHT.keys()))
each_policy_module = pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("dnsbl_policy")))


def test_every_module_has_its_floor_and_every_floor_its_modules():
    assert sorted(HEIGHT) == sorted(MODULES)


@each_module
def test_imports_point_down_or_sideways(module):
    assert {other for other in OURS[module] if HEIGHT.get(other, 0) > HEIGHT[module]} == set()


def test_no_imports_go_in_circles():
    list(TopologicalSorter(OURS).static_order())


@pytest.mark.parametrize("package", ROOTS)
def test_a_package_itself_imports_nothing(package):
    assert IMPORTS[package] == set()


@each_module
def test_the_command_line_is_imported_by_nothing(module):
    if HEIGHT[module] < len(STOREYS) - 1:
        assert {other for other in OURS[module] if other.startswith("dnsbl_milter.cli")} == set()


@each_policy_module
def test_the_policy_knows_only_itself_and_what_is_pure(module):
    assert {other for other in OURS[module] if not other.startswith("dnsbl_policy")} == set()
    assert FOREIGN[module] - PURE == set()


@each_policy_module
def test_the_policy_calls_nothing_that_reaches_outside(module):
    called = {node.func.id for node in ast.walk(TREES[module]) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert called & IMPURE_CALLS == set()


def test_each_library_has_one_home():
    found = {}
    for module, others in FOREIGN.items():
        for library in others:
            if library == "sqlite3" or library not in sys.stdlib_module_names:
                found.setdefault(library, set()).add(module)
    assert found == {library: set(modules.split()) for library, modules in HOMES.items()}


# --- nothing may hide the C module

SOURCES = sorted(path for folder in ("contrib", "milter", "policy", "tests") for path in (ROOT / folder).rglob("*.py"))


def settings() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", "utf-8")
    return parser


PATHS = settings()["tool:pytest"]["pythonpath"].split()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_imports_the_c_module_by_its_own_name(path):
    found = {
        name
        for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path)))
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }
    assert {name for name in found if name.split(".")[0] == "milter"} == set()


@pytest.mark.parametrize("path", [
    "milter/__init__.py", "policy/__init__.py", "tests/milter", "milter.py",
    *(f"{root}/{name}" for root in PATHS for name in ("milter", "milter.py")),
])  # fmt: skip
def test_nothing_is_there_that_would_hide_the_c_module(path):
    assert not (ROOT / path).exists()


def test_a_fresh_interpreter_in_the_checkout_finds_the_c_module():
    shown = subprocess.run(
        [sys.executable, "-c", "import Milter, milter; print(milter.__file__, Milter.milter is milter, milter.setconn)"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / path) for path in PATHS)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.split()
    assert shown[0].endswith(tuple(EXTENSION_SUFFIXES))
    assert shown[1:4] == ["True", "<built-in", "function"]


# --- what is installed is what is there


def test_every_package_is_installed():
    listed = settings()["options"]["packages"].split()
    assert sorted(listed) == sorted(name for name, path in MODULES.items() if path.name == "__init__.py")


@pytest.mark.parametrize(("package", "names"), settings()["options.package_data"].items())
def test_every_file_of_a_package_is_there(package, names):
    assert [name for name in names.split() if not (ROOTS[package] / package / name).is_file()] == []
