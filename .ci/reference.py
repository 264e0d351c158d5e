"""The reference pages that are read from the source: errors.md, settings.md, conditions.md and metrics.md of docs/reference.

Reads the text of the modules and imports none of them, so that it also works on a tree that does not run. `--check` writes
nothing and says which page is not as a fresh run would make it.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = (
    Path("core/src/hansa/settings.py"),
    Path("core/src/hansa/apply/repository/settings.py"),
    Path("core/src/hansa/telemetry/settings.py"),
    Path("operator/src/hansa_operator/settings.py"),
)
METRICS = (Path("core/src/hansa/telemetry/metrics.py"), Path("operator/src/hansa_operator/metrics.py"))
PROBLEMS = Path("core/src/hansa/server/problem.py")
TOOLS = Path("plugins/tools/src/hansa_tools")
CONDITIONS = Path("crds/src/hansa_crds/conditions.py")
SHOWN = {
    "Tenant": "`hansa tenants show NAME`, `GET /v1/tenants/NAME` and the status of a Tenant object show them.",
    "Agent": "`hansa get agent NAME -o yaml`, `GET /v1/agents/NAME` and the status of an Agent object show them: [rollout](../rollout.md).",
}
"""Kind -> where people see its conditions, if not in Kubernetes alone."""


@dataclass(frozen=True)
class ErrorClass:
    """One class of an error tree; `facts` are its class attributes that are literals, its parents' included."""

    module: str
    name: str
    text: str
    depth: int
    facts: dict[str, object]


@dataclass(frozen=True)
class Reason:
    """A code given where an error is raised, instead of by its class."""

    code: str
    call: str
    module: str


@dataclass(frozen=True)
class Setting:
    """One setting as its field declares it; `text` is the docstring that follows the field."""

    group: str
    variable: str
    kind: str
    default: str
    text: str


def modules(root: Path) -> Iterator[tuple[str, ast.Module]]:
    """Every module of our distributions, by dotted name."""
    for folder in sorted([*root.glob("crds/src"), *root.glob("plugins/*/src"), *root.glob("core/src"), *root.glob("operator/src")]):
        for path in sorted(folder.rglob("*.py")):
            name = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
            yield name, _parsed(path)


def _parsed(path: Path) -> ast.Module:
    return _tree(path.read_text(encoding="utf-8"))


@cache
def _tree(text: str) -> ast.Module:
    return ast.parse(text)


def _classes(node: ast.AST) -> Iterator[ast.ClassDef]:
    """Those of a module, and those within them. Not what functions hold: nobody else can name it."""
    for each in ast.iter_child_nodes(node):
        if isinstance(each, ast.ClassDef):
            yield each
        if isinstance(each, ast.ClassDef | ast.Module | ast.If | ast.Try):
            yield from _classes(each)


def error_classes(root: Path) -> list[ErrorClass]:
    """Every error with a code: the trees that grow from a class that derives from Exception and declares `code`."""
    found = {(module, node.name): node for module, tree in modules(root) for node in _classes(tree)}
    children: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for key, node in found.items():
        for parent in _parents(node):
            children.setdefault(_named(parent, key[0], list(found)), []).append(key)

    def grow(key: tuple[str, str], depth: int, inherited: dict[str, object]) -> Iterator[ErrorClass]:
        node = found[key]
        facts = {**inherited, **_literals(node)}
        yield ErrorClass(key[0], node.name, " ".join((ast.get_docstring(node) or "").split()), depth, facts)
        for child in children.get(key, []):
            yield from grow(child, depth + 1, facts)

    trunks = sorted(key for key in children.get(("", "Exception"), []) if "code" in _literals(found[key]))
    return [error for trunk in trunks for error in grow(trunk, 0, {})]


def reasons(root: Path) -> list[Reason]:
    """Codes written at a call: `RunFailed(..., code="limit_turns")`, `FieldError(path, "type", ...)`."""
    seen: dict[tuple[str, str, str], Reason] = {}
    for module, tree in modules(root):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"RunFailed", "FieldError"}:
                call = node.func.id
                candidates: list[ast.expr] = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
                if call == "FieldError":
                    candidates += node.args[1:2]
                for value in candidates:
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        seen[call, value.value, module] = Reason(value.value, call, module)
    return [seen[key] for key in sorted(seen)]


def http_codes(root: Path) -> list[tuple[str, int]]:
    """Codes that the API gives to refusals of its framework: the constant CODES of the module that answers them."""
    path = root / PROBLEMS
    for node in _parsed(path).body if path.is_file() else []:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CODES":
            return [(code, status) for status, code in ast.literal_eval(node.value).items()]
    return []


def tool_settings(root: Path) -> list[Setting]:
    """Settings of built-in tools: what stands in a constant SETTING of a tool, with its docstring, as the process reads it."""
    found: list[Setting] = []
    for path in sorted((root / TOOLS).glob("*.py")):
        body = _parsed(path).body
        for node, after in zip(body, [*body[1:], None], strict=True):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "SETTING":
                variable = "HANSA_TOOL_" + str(ast.literal_eval(node.value)).upper()
                found.append(Setting("ToolSettings", variable, "str", "''", _docstring(after)))
    return found


def settings(root: Path) -> list[Setting]:
    """Every setting, in the order of the files."""
    trees = [_parsed(root / path) for path in SETTINGS if (root / path).is_file()]
    found: list[Setting] = []
    for group in (node for tree in trees for node in tree.body):
        if not isinstance(group, ast.ClassDef):
            continue
        for field, after in zip(group.body, [*group.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(field.annotation, ast.Subscript):
                variable = _variable(field.annotation)
                if variable:
                    kind = ast.unparse(field.annotation).removeprefix("Annotated[").split(",")[0]
                    default = ast.unparse(field.value) if field.value else ""
                    found.append(Setting(group.name, variable, kind, default, _docstring(after)))
    return found


def errors_page(root: Path) -> str:
    """docs/reference/errors.md."""
    lines = [
        "# Errors",
        "",
        "Generated from the error trees by `make generate`; not edited by hand.",
        "",
        "A REST answer that is not a success is an `application/problem+json` object (RFC 9457) with `code`, and the command line",
        "exits with the status given here. Codes are stable; texts are not.",
    ]
    for error in error_classes(root):
        facts = error.facts
        if error.depth == 0:
            lines += ["", f"## {error.module}", "", *_head("code", "HTTP", "exit", "retry", "class", "meaning")]
        retry = {True: "yes", False: "no"}.get(bool(facts["retryable"])) if "retryable" in facts else ""
        name = "&nbsp;" * 2 * error.depth + error.name
        cells = [f"`{facts['code']}`", str(facts.get("status", "")), str(facts.get("exit_code", "")), retry or "", name, _cell(error.text)]
        lines.append("| " + " | ".join(cells) + " |")
    for call, title in (("RunFailed", "Reasons for which a run fails"), ("FieldError", "Codes of a wrong field")):
        found = [reason for reason in reasons(root) if reason.call == call]
        if found:
            lines += ["", f"## {title}", "", *_head("code", "raised in")]
            for code in sorted({reason.code for reason in found}):
                places = ", ".join(f"`{reason.module}`" for reason in found if reason.code == code)
                lines.append(f"| `{code}` | {places} |")
    refused = http_codes(root)
    if refused:
        lines += ["", "## Codes of requests that fit no route", "", *_head("code", "HTTP")]
        lines += [f"| `{code}` | {status} |" for code, status in refused]
    return "\n".join([*lines, ""])


def settings_page(root: Path) -> str:
    """docs/reference/settings.md."""
    lines = [
        "# Settings",
        "",
        "Generated from the modules `settings` by `make generate`; not edited by hand. Every process reads the environment once, at start.",
        "An empty variable counts as absent.",
    ]
    group = ""
    for setting in [*settings(root), *tool_settings(root)]:
        if setting.group != group:
            group = setting.group
            lines += ["", f"## {group.removesuffix('Settings')}", "", *_head("variable", "type", "default", "meaning")]
        lines.append(f"| `{setting.variable}` | {setting.kind} | `{setting.default}` | {_cell(setting.text)} |")
    lines += ["", "Any other variable `HANSA_TOOL_NAME` reaches every tool, those of plugins too, as the setting `name`."]
    return "\n".join([*lines, ""])


def conditions(root: Path) -> dict[str, dict[str, dict[str, str]]]:
    """Every condition of every kind: kind -> type -> reason -> meaning; the meaning under the empty reason is that of the type."""
    path = root / CONDITIONS
    for node in _parsed(path).body if path.is_file() else []:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "CONDITIONS" and isinstance(node.value, ast.Call):
            return ast.literal_eval(node.value.args[0])
    return {}


def conditions_page(root: Path) -> str:
    """docs/reference/conditions.md."""
    lines = [
        "# Conditions",
        "",
        "Generated from `hansa_crds.conditions` by `make generate`; not edited by hand.",
        "",
        "Each has a status (`True`, `False` or `Unknown`), a reason, a message for people, the generation of the object that it is about,",
        "and the time since when it has its status. What the operator says besides stands on the page of each kind.",
    ]
    for kind, types in conditions(root).items():
        lines += ["", f"## Of a{'n' if kind[0] in 'AEIOU' else ''} {kind}", *(["", SHOWN[kind]] if kind in SHOWN else [])]
        for type_, found in types.items():
            rows = [f"| `{reason}` | {_cell(text)} |" for reason, text in found.items() if reason]
            lines += ["", f"### {type_}", "", found.get("", ""), *(["", *_head("reason", "meaning"), *rows] if rows else [])]
    return "\n".join([*lines, ""])


def metrics(root: Path) -> dict[str, str]:
    """Every metric, those of control planes and workers first: name -> meaning."""
    found: dict[str, str] = {}
    for path in (root / each for each in METRICS):
        for node in _parsed(path).body if path.is_file() else []:
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "METRICS" and isinstance(node.value, ast.Call):
                found |= ast.literal_eval(node.value.args[0])
    return found


def metrics_page(root: Path) -> str:
    """docs/reference/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Generated from `hansa.telemetry.metrics` and `hansa_operator.metrics` by `make generate`; not edited by hand. `hansa-operator`",
        "shows its own at `/metrics`; control planes and workers show theirs where [a port is set for them](../serving.md#metrics).",
        "",
        *_head("metric", "meaning"),
    ]
    return "\n".join([*lines, *(f"| `{name}` | {_cell(text)} |" for name, text in metrics(root).items()), ""])


PAGES = {
    Path("docs/reference/errors.md"): errors_page,
    Path("docs/reference/settings.md"): settings_page,
    Path("docs/reference/conditions.md"): conditions_page,
    Path("docs/reference/metrics.md"): metrics_page,
}


def stale(root: Path) -> list[str]:
    """Pages that are not as a fresh run would make them."""
    return [str(path) for path, page in PAGES.items() if not (root / path).is_file() or (root / path).read_text("utf-8") != page(root)]


def write(root: Path) -> None:
    """Write every page."""
    for path, page in PAGES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(page(root), encoding="utf-8")


def _named(name: str, module: str, known: list[tuple[str, str]]) -> tuple[str, str]:
    """The class that `name` means in a module: one of its own distribution before one of another."""
    same = [key for key in known if key[1] == name]
    near = [key for key in same if key[0].split(".")[0] == module.split(".")[0]]
    return (near or same or [("", name)])[0]


def _parents(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(parent).rsplit(".", 1)[-1] for parent in node.bases]


def _literals(node: ast.ClassDef) -> dict[str, object]:
    facts: dict[str, object] = {}
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and statement.value is not None:
            pairs = [(statement.target, statement.value)]
        elif isinstance(statement, ast.Assign):
            target, value = statement.targets[0], statement.value
            both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
            pairs = list(zip(target.elts, value.elts, strict=True)) if both else [(target, value)]  # pyright: ignore[reportAttributeAccessIssue]
        else:
            continue
        facts |= {target.id: value.value for target, value in pairs if isinstance(target, ast.Name) and isinstance(value, ast.Constant)}
    return facts


def _variable(annotation: ast.Subscript) -> str:
    for node in ast.walk(annotation):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "env":
            return str(ast.literal_eval(node.args[0]))
    return ""


def _docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return " ".join(node.value.value.split())
    return ""


def _head(*columns: str) -> list[str]:
    return ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """`--check` compares, nothing writes; the exit status."""
    if arguments == ["--check"]:
        found = stale(ROOT)
        print("\n".join(f"{path} is not what the source says: run `make generate`" for path in found))
        return 1 if found else 0
    write(ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
