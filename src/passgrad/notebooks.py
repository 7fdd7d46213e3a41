"""Notebooks: from the ``.py`` source through papermill to an executed ``.ipynb``, and into the
book.

The source of a notebook is a Python file in the percent format with one cell tagged ``parameters``.
The defaults in that cell are the ``cpu`` profile. A parameter that the cell does not have is an
error.

The book reads its chapters through :func:`executed`, which looks an executed notebook up by the
hash of everything that it depends on, and runs it when there is none.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import re
import threading
import time
import tokenize
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from passgrad import paths, provenance
from passgrad.errors import UserError
from passgrad.files import write_atomic
from passgrad.results import NOTEBOOK_VARIABLE, PROFILE_VARIABLE, manifest_path

Profile = Literal["smoke", "cpu", "gpu"]

#: how many executed versions of one notebook are kept for the book
KEPT = 3


# --- parameters -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter:
    """One line of the parameters cell: name, annotation, default and the comment that explains
    it.
    """

    name: str
    annotation: str
    default: Any
    comment: str


def _split(text: str) -> Any:
    import jupytext

    notebook = jupytext.reads(text, fmt="py:percent")
    for index, cell in enumerate(notebook.cells):
        # jupytext draws random ids; these make two conversions of one file equal.
        cell["id"] = f"cell-{index:03d}"
    notebook.metadata.setdefault(
        "kernelspec", {"name": "python3", "display_name": "Python 3", "language": "python"}
    )
    return notebook


def _parameter_cell(notebook: Any) -> str | None:
    cells = [
        cell.source
        for cell in notebook.cells
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", [])
    ]
    if len(cells) > 1:
        raise UserError(f"the notebook has {len(cells)} cells tagged parameters; keep one")
    return cells[0] if cells else None


def _comments(source: str) -> dict[int, str]:
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            found[token.start[0]] = token.string.lstrip("# ").strip()
    return found


def parameters_of(path: Path | str) -> dict[str, Parameter]:
    """The parameters of a notebook, in the order of its cell.

    Raises
    ------
    UserError
        When the cell holds anything but assignments of literals.
    """
    path = find(path)
    source = _parameter_cell(_split(path.read_text(encoding="utf-8")))
    if source is None:
        return {}
    comments = _comments(source)
    found: dict[str, Parameter] = {}
    target: ast.expr
    value: ast.expr | None
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.AnnAssign):
            target, value, annotation = (
                statement.target,
                statement.value,
                ast.unparse(statement.annotation),
            )
        elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, value, annotation = statement.targets[0], statement.value, ""
        else:
            raise UserError(
                f"{path.name}: the parameters cell holds {ast.unparse(statement)!r}; "
                "it may only assign literals to names"
            )
        try:
            if not isinstance(target, ast.Name) or value is None:
                raise ValueError
            default = ast.literal_eval(value)
        except ValueError:
            raise UserError(
                f"{path.name}: the parameter {ast.unparse(target)} is not set to a literal; "
                "compute derived values in a later cell"
            ) from None
        comment = comments.get(statement.end_lineno or statement.lineno, "")
        found[target.id] = Parameter(
            target.id, annotation or type(default).__name__, default, comment
        )
    return found


def _fit(name: str, value: Any, parameter: Parameter) -> Any:
    """``value`` in the type of the parameter, or a UserError."""
    default = parameter.default
    wanted = parameter.annotation

    def refuse() -> UserError:
        return UserError(
            f"the parameter {name} is {wanted} (default {default!r}), got {value!r}; give a value "
            f"of that type"
        )

    if value is None:
        if default is None or "None" in wanted:
            return value
        raise refuse()
    if default is None:
        return value
    if isinstance(default, bool) or isinstance(value, bool):
        if isinstance(default, bool) and isinstance(value, bool):
            return value
        raise refuse()
    if isinstance(default, float):
        if isinstance(value, int | float):
            return float(value)
        raise refuse()
    if isinstance(default, list | tuple):
        if not isinstance(value, list | tuple):
            raise refuse()
        items = list(value)
        if default:
            kinds = (int, float) if isinstance(default[0], float) else (type(default[0]),)
            if not all(isinstance(item, kinds) and not isinstance(item, bool) for item in items):
                raise refuse()
            if isinstance(default[0], float):
                items = [float(item) for item in items]
        return items if isinstance(default, list) else tuple(items)
    if not isinstance(value, type(default)):
        raise refuse()
    return value


def parse_value(text: str, parameter: Parameter) -> Any:
    """The value that ``-p name=text`` gives to a parameter: text stays text where text is
    wanted.
    """
    if isinstance(parameter.default, str):
        return text
    with suppress(ValueError, SyntaxError):
        return ast.literal_eval(text)
    try:
        return yaml.safe_load(text)  # true, null, [1, 2]
    except yaml.YAMLError:
        return text


def profile_values(profile: str | None, stem: str) -> dict[str, Any]:
    """Values that a profile gives to a notebook; empty for None and for notebooks that it does not
    name.
    """
    if profile is None:
        return {}
    path = paths.profiles() / f"{profile}.yml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in paths.profiles().glob("*.yml"))) or "none"
        raise UserError(f"no profile {profile!r}; known profiles: {known}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise UserError(f"{paths.relative(path)} is not YAML (line {line}); mend it") from None
    values = content.get(stem) or {}
    if not isinstance(values, dict):
        raise UserError(f"{paths.relative(path)}: the entry {stem} must map parameters to values")
    return values


def resolve(
    path: Path | str, profile: str | None = None, parameters: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The value of every parameter of a notebook: defaults, then the profile, then ``parameters``.

    Raises
    ------
    UserError
        For a parameter that the notebook does not have (the known ones are listed) and for a value
        of another type.
    """
    path = find(path)
    known = parameters_of(path)
    values = {name: parameter.default for name, parameter in known.items()}
    for origin, given in (
        (f"the profile {profile} sets", profile_values(profile, path.stem)),
        ("there is", dict(parameters or {})),
    ):
        for name, value in given.items():
            if name not in known:
                lead = (
                    f"{origin} an unknown parameter"
                    if origin != "there is"
                    else "unknown parameter"
                )
                raise UserError(
                    f"{lead} {name!r} of {path.name}; known parameters: "
                    f"{', '.join(known) or 'none'}"
                )
            values[name] = _fit(name, value, known[name])
    return values


# --- finding and running --------------------------------------------------------------------------


def sources() -> list[Path]:
    """The notebooks of the project, in their order."""
    return sorted(paths.notebooks().glob("[0-9][0-9]_*.py"))


def find(path: Path | str) -> Path:
    """The source of a notebook: a path, or the name or number of a notebook of the project.

    Raises
    ------
    UserError
        When there is no such notebook; the known ones are listed.
    """
    given = Path(path)
    if given.is_file():
        if given.suffix != ".py":
            raise UserError(
                f"{given.name} is not a .py notebook; give the .py source, not what is made from it"
            )
        return given.resolve()
    known = sources()
    for source in known:
        if str(path) in (source.stem, source.name, source.stem.split("_")[0]):
            return source
    names = ", ".join(f"notebooks/{source.name}" for source in known) or "none"
    raise UserError(f"no notebook {str(path)!r}; known notebooks: {names}")


class _Progress:
    """Says which cell of how many runs and for how long: a bar in a terminal, lines elsewhere."""

    HEARTBEAT = 30.0

    def __init__(self, name: str, total: int, enabled: bool) -> None:
        from rich.console import Console

        self.name, self.total, self.enabled = name, total, enabled
        self.console = Console(stderr=True, soft_wrap=True, highlight=False)
        self.start = time.perf_counter()
        self.cell, self.what = 0, "starting"
        self.stop = threading.Event()
        self.bar: Any = None
        self.thread: threading.Thread | None = None

    def __enter__(self) -> _Progress:
        if not self.enabled:
            return self
        if self.console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self.bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=20),
                TextColumn("cell {task.completed} of {task.total}"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[what]}", markup=False),
                console=self.console,
                transient=True,
            )
            self.bar.start()
            self.task = self.bar.add_task(self.name, total=self.total, what=self.what)
        else:
            self.thread = threading.Thread(target=self._beat, daemon=True)
            self.thread.start()
        return self

    def _beat(self) -> None:
        while not self.stop.wait(self.HEARTBEAT):
            self._line()

    def _line(self) -> None:
        # Plain text: a log is read long after the terminal is gone.
        self.console.print(
            f"  {self.name}  cell {self.cell} of {self.total}  {self.elapsed}  {self.what}",
            markup=False,
        )

    @property
    def elapsed(self) -> str:
        seconds = int(time.perf_counter() - self.start)
        return f"{seconds // 60}:{seconds % 60:02d}"

    def step(self, cell: int, source: str) -> None:
        lines = [line.strip() for line in source.splitlines()]
        first = next((line for line in lines if line and not line.startswith("#")), "")
        self.cell, self.what = cell, first[:60]
        if not self.enabled:
            return
        if self.bar is not None:
            self.bar.update(self.task, completed=cell, what=self.what)
        else:
            self._line()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        if self.bar is not None:
            self.bar.stop()
        if self.thread is not None:
            self.thread.join(timeout=1)

    def close(self, outcome: str) -> None:
        if self.enabled:
            self.console.print(f"  {self.name}  {outcome} in {self.elapsed}", markup=False)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables of the kernel, which inherits those of this process when it starts."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _register_engine() -> str:
    """The papermill engine that reports its progress; returns its name."""
    from papermill.engines import NBClientEngine, papermill_engines

    class ReportingEngine(NBClientEngine):
        """Papermill's own engine, with a report at the start of every code cell."""

        @classmethod
        def execute_managed_notebook(  # type: ignore[override]
            cls, nb_man: Any, kernel_name: str, report: _Progress | None = None, **keywords: Any
        ) -> Any:
            if report is not None:
                code = [i for i, cell in enumerate(nb_man.nb.cells) if cell.cell_type == "code"]
                report.total = len(code)
                order = {index: number for number, index in enumerate(code, start=1)}
                begin = nb_man.cell_start

                def cell_start(cell: Any, cell_index: int | None = None, **more: Any) -> Any:
                    if cell_index in order:
                        report.step(order[cell_index], cell.source)
                    return begin(cell, cell_index=cell_index, **more)

                nb_man.cell_start = cell_start
            return super().execute_managed_notebook(nb_man, kernel_name, **keywords)

    papermill_engines.register("passgrad", ReportingEngine)
    return "passgrad"


def run_notebook(
    path: Path | str,
    profile: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    output_dir: Path | str | None = None,
    progress: bool = True,
) -> Path:
    """Execute a notebook and return the path of the executed ``.ipynb``.

    Parameters
    ----------
    path
        The ``.py`` source, or the name or number of a notebook of the project.
    profile
        Name of a file in ``notebooks/profiles``; None for the defaults of the parameters cell.
    parameters
        Values that go before those of the profile.
    output_dir
        Folder of the executed notebook; ``_build/notebooks/<profile>`` by default.
    progress
        Report on standard error which cell runs and for how long.

    Raises
    ------
    UserError
        Unknown notebook, profile or parameter; a value of another type; a cell that fails. In the
        last case the executed part is kept as ``<name>.failed.ipynb`` and the message names the
        cell.
    """
    path = find(path)
    known = parameters_of(path)
    values = resolve(path, profile, parameters)
    injected = {name: value for name, value in values.items() if value != known[name].default}
    folder = (
        Path(output_dir)
        if output_dir is not None
        else paths.build() / "notebooks" / (profile or "cpu")
    )
    folder.mkdir(parents=True, exist_ok=True)
    final = folder.resolve() / f"{path.stem}.ipynb"
    failed = final.with_name(f"{path.stem}.failed.ipynb")

    import nbformat

    record = provenance.record(parameters=values)
    start = time.perf_counter()
    notebook = _execute(path, injected, profile, failed, progress)
    record |= {
        "notebook": paths.relative(path),
        "profile": profile or "cpu",
        "changed": sorted(injected),
        "wall_seconds": round(time.perf_counter() - start, 1),
    }
    notebook.metadata.pop("papermill", None)  # it holds machine paths
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
    notebook.metadata["passgrad"] = record
    write_atomic(final, nbformat.writes(notebook).encode())
    failed.unlink(missing_ok=True)
    return final


def _execute(
    path: Path, injected: dict[str, Any], profile: str | None, failed: Path, progress: bool
) -> Any:
    import logging

    import papermill
    from papermill.exceptions import PapermillExecutionError

    notebook = _split(path.read_text(encoding="utf-8"))
    partial = failed.with_name(f".{path.stem}.{os.getpid()}.part.ipynb")
    variables = {
        PROFILE_VARIABLE: profile or "cpu",
        NOTEBOOK_VARIABLE: paths.relative(path),
        # ipykernel would write a remark about frozen modules to the first cell's output.
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        # tqdm asks for ipywidgets, and its remark has a path of this machine in it.
        "PYTHONWARNINGS": ",".join(
            filter(None, (os.environ.get("PYTHONWARNINGS"), "ignore:IProgress not found"))
        ),
    }
    logging.getLogger("papermill").setLevel(logging.WARNING)
    report = _Progress(path.stem, len(notebook.cells), progress)

    def stopped(where: str, reason: str) -> UserError:
        kept = ""
        if partial.is_file():
            os.replace(partial, failed)
            inside = failed.is_relative_to(paths.root())
            kept = f"; the executed part is in {paths.relative(failed) if inside else failed}"
        reason = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", reason).split())
        report.close("stopped")
        return UserError(f"{path.name} stopped in {where}: {reason}{kept}")

    try:
        with report, _environment(variables):
            result = papermill.execute_notebook(
                notebook,
                str(partial),
                parameters=injected,
                engine_name=_register_engine(),
                kernel_name="python3",
                progress_bar=False,
                cwd=str(path.parent),
                start_timeout=120,
                # Not the kernel's remarks about its own transport.
                extra_arguments=["--IPKernelApp.log_level=ERROR"],
                report=report,
            )
    except PapermillExecutionError as error:
        line = next((line for line in error.source.splitlines() if line.strip()), "").strip()
        raise stopped(
            f"cell {report.cell} ({line[:50]!r})", f"{error.ename}: {error.evalue}"
        ) from None
    except KeyboardInterrupt:
        raise
    except Exception as error:
        # A kernel that died (out of memory, mostly) raises errors of nbclient or of the kernel's
        # client.
        raise stopped(f"cell {report.cell}", f"{type(error).__name__}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    report.close("done")
    return result


# --- the book -------------------------------------------------------------------------------------


def _imported_modules(text: str) -> list[str]:
    """Modules of the package that a notebook uses, by its import statements and by ``pg.name``."""
    import passgrad

    homes = passgrad._HOMES
    tree = ast.parse(text)
    found: set[str] = set()
    aliases: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "passgrad":
                    aliases.add(alias.asname or alias.name)
                elif alias.name.startswith("passgrad."):
                    found.add(alias.name)
        elif (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] == "passgrad"
        ):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if node.module == "passgrad" and alias.name in homes:
                    found.add(homes[alias.name])
                elif _is_module(inner):
                    found.add(inner)
                else:
                    found.add(node.module)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in aliases
        ):
            if node.attr in homes:
                found.add(homes[node.attr])
            elif _is_module(f"passgrad.{node.attr}"):
                found.add(f"passgrad.{node.attr}")
    return sorted(found - {"passgrad"})


def _is_module(name: str) -> bool:
    base = paths.source().parent.joinpath(*name.split("."))
    return base.with_suffix(".py").is_file() or (base / "__init__.py").is_file()


def _python_of(notebook: Any) -> str:
    """The code of a notebook as one module, without magic commands."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return "\n".join(
        "\n".join(
            "" if line.lstrip().startswith(("%", "!")) else line for line in cell.splitlines()
        )
        for cell in cells
    )


def book_profile() -> str:
    """Profile that the book is built in: ``PASSGRAD_PROFILE``, "cpu" by default."""
    return os.environ.get(PROFILE_VARIABLE) or "cpu"


def key(path: Path | str, profile: str | None = None) -> str:
    """Hash of all that an executed notebook depends on.

    Its text, the values of its parameters, the code of the modules that it uses and of all that
    these import, the lock file, and the results that ship with the project.
    """
    path = find(path)
    profile = profile or book_profile()
    text = path.read_text(encoding="utf-8")
    total = hashlib.sha256()
    total.update(text.encode())
    total.update(json.dumps([profile, resolve(path, profile)], sort_keys=True).encode())
    modules = _imported_modules(_python_of(_split(text)))
    total.update(provenance.digest(modules).encode())
    for file in (paths.lock(), manifest_path()):
        total.update(provenance.file_sha256(file).encode() if file.is_file() else b"-")
    return total.hexdigest()[:16]


def executed_path(path: Path | str, profile: str | None = None) -> Path:
    """Where the executed notebook of the book lies, or will lie."""
    path = find(path)
    return paths.executed() / f"{path.stem}-{key(path, profile)}.ipynb"


def ensure_executed(path: Path | str, profile: str | None = None, progress: bool = True) -> Path:
    """The executed notebook for the book; runs the notebook when nothing fits."""
    path = find(path)
    profile = profile or book_profile()
    target = executed_path(path, profile)
    if not target.is_file():
        made = run_notebook(
            path, profile, output_dir=paths.build() / "notebooks" / profile, progress=progress
        )
        write_atomic(target, made.read_bytes())
        old = sorted(paths.executed().glob(f"{path.stem}-*.ipynb"), key=lambda p: p.stat().st_mtime)
        for stale in old[:-KEPT]:
            stale.unlink(missing_ok=True)
    return target


def executed(text: str) -> Any:
    """The executed notebook whose source is ``text``, with the provenance of the run as its last
    cell.

    This is the reader that the book registers for ``.py`` pages.

    Raises
    ------
    UserError
        When the text is not that of a notebook of the project.
    """
    import nbformat

    wanted = text.replace("\r\n", "\n").rstrip("\n")
    for path in sources():
        if path.read_text(encoding="utf-8").replace("\r\n", "\n").rstrip("\n") == wanted:
            break
    else:
        raise UserError(
            "this text is not one of the notebooks in notebooks/; only those can be pages"
        )
    notebook = nbformat.reads(ensure_executed(path).read_text(encoding="utf-8"), as_version=4)
    record = notebook.metadata.pop("passgrad")
    notebook.metadata.pop("jupytext", None)
    footer = nbformat.v4.new_markdown_cell(provenance_markdown(record, path), id="provenance")
    notebook.cells.append(footer)
    return notebook


def provenance_markdown(record: Mapping[str, Any], path: Path | str) -> str:
    """The end of a page: what ran, with which values, when, for how long, on what."""
    known = parameters_of(path)

    def cell(value: Any) -> str:
        return str(value).replace("|", "\\|").replace("\n", " ").replace("$", "\\$")

    rows = "\n".join(
        f"| `{name}` | `{cell(json.dumps(record['parameters'][name], ensure_ascii=False))}` | "
        f"{cell(parameter.comment)} |"
        for name, parameter in known.items()
    )
    cpu = record["cpu"]
    flags = ", ".join(cpu["flags"]) or "none of those that matter here"
    seconds = record["wall_seconds"]
    lasted = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} minutes"
    packages = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    device = f" GPU: {record['gpu']}." if "gpu" in record else ""
    commit = ""
    if record.get("commit"):
        revision, _, dirty = record["commit"].partition("-")
        commit = f" Commit `{revision[:12]}`{', with changes' if dirty else ''}."
    stem = Path(record["notebook"]).stem
    link = f'<a href="../_notebooks/{stem}.ipynb" download>Download the executed notebook</a>.'
    parameters = f"\n\n| parameter | value | meaning |\n| --- | --- | --- |\n{rows}" if rows else ""
    return f"""\
```{{admonition}} Provenance of this page
:class: note dropdown provenance

Source `{record["notebook"]}`, executed in the `{record["profile"]}` profile on
{record["time"][:10]} in {lasted}.{commit}
{link}

Processor: {cpu["model"]}, {cpu["cores"]} cores, {flags}.{device}
Versions: {packages}.{parameters}
```
"""
