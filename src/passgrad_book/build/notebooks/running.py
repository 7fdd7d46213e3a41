"""A notebook executed by papermill, in a kernel of its own."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from passgrad import provenance
from passgrad.errors import UserError
from passgrad.files import write_atomic
from passgrad_book.build import paths
from passgrad_book.build.notebooks.parameters import parameters_of, resolve
from passgrad_book.build.notebooks.progress import CellProgress
from passgrad_book.build.notebooks.source import find, split
from passgrad_book.build.results import NOTEBOOK_VARIABLE, PROFILE_VARIABLE, environment


class NotebookFailed(UserError):
    """A cell that raised, or a kernel that died.

    ``reason`` is the error alone; the message names the notebook, the cell and the file of the part
    that was executed too. ``record`` describes the run.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.record: dict[str, Any] = {}


@dataclass(frozen=True)
class Executed:
    """The executed notebook, its file, and the record of the run, which is in its metadata too."""

    notebook: Any
    path: Path
    record: dict[str, Any]


def _register_engine() -> str:
    """The papermill engine that reports its progress; returns its name."""
    from papermill.engines import NBClientEngine, papermill_engines

    manager = _own_kernel()

    class ReportingEngine(NBClientEngine):
        """Papermill's own engine, with a report at the start of every code cell, and the kernel of
        this interpreter.
        """

        @classmethod
        def execute_managed_notebook(  # type: ignore[override]
            cls, nb_man: Any, kernel_name: str, report: CellProgress | None = None, **keywords: Any
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
            return super().execute_managed_notebook(
                nb_man, kernel_name, kernel_manager_class=manager, **keywords
            )

    papermill_engines.register("passgrad", ReportingEngine)
    return "passgrad"


def _own_kernel() -> type:
    """A manager whose kernel is this interpreter, whatever kernels are installed.

    A kernel of another environment under the same name would run the notebook with versions that
    are not those of the record.

    :raises UserError: Where this environment has no kernel.
    """
    if find_spec("ipykernel") is None:
        raise UserError(
            f"the environment of {sys.executable} has no kernel for notebooks; "
            "install ipykernel there"
        )
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class OwnKernel(AsyncKernelManager):
        """Starts the interpreter of this process."""

        @property
        def kernel_spec(self) -> KernelSpec:
            return KernelSpec(
                argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                display_name="Python 3",
                language="python",
            )

    return OwnKernel


def run_notebook(
    path: Path | str,
    profile: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    output_dir: Path | str | None = None,
    progress: bool = True,
) -> Path:
    """Execute a notebook and return the path of the executed ``.ipynb``, the only file written.

    :param path: The ``.py`` source, or the name of a notebook of the project.
    :param profile: Name of a file in ``notebooks/profiles``; None for the defaults of the
        parameters cell.
    :param parameters: Values that go before those of the profile.
    :param output_dir: Folder of the executed notebook; ``_build/notebooks/<profile>`` by default.
    :param progress: Report on standard error which cell runs and for how long.
    :raises UserError: Unknown notebook, profile or parameter; a value of another type; a cell that
        fails (:class:`NotebookFailed`). In the last case the executed part is kept as
        ``<name>.failed.ipynb`` and the message names the cell.
    """
    folder = Path(output_dir) if output_dir is not None else None
    folder = folder or paths.build() / "notebooks" / (profile or "cpu")
    return execute(path, profile, parameters, folder, progress=progress).path


def execute(
    path: Path | str,
    profile: str | None,
    parameters: Mapping[str, Any] | None,
    folder: Path,
    *,
    variables: Mapping[str, str] | None = None,
    progress: bool = True,
) -> Executed:
    """:func:`run_notebook` with its record, and ``variables`` in the environment of the kernel."""
    path = find(path)
    known = parameters_of(path)
    values = resolve(path, profile, parameters)
    injected = {name: value for name, value in values.items() if value != known[name].default}
    folder.mkdir(parents=True, exist_ok=True)
    final = folder.resolve() / f"{path.stem}.ipynb"
    failed = final.with_name(f"{path.stem}.failed.ipynb")

    import nbformat

    record = provenance.record(parameters=values) | {
        "notebook": paths.relative(path),
        "profile": profile or "cpu",
        "changed": sorted(injected),
    }
    start = time.perf_counter()
    try:
        notebook = _execute(path, injected, profile, failed, dict(variables or {}), progress)
    except NotebookFailed as error:
        error.record = record | {"wall_seconds": round(time.perf_counter() - start, 1)}
        raise
    record["wall_seconds"] = round(time.perf_counter() - start, 1)
    notebook.metadata.pop("papermill", None)  # it holds machine paths
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
    notebook.metadata["passgrad"] = record
    write_atomic(final, nbformat.writes(notebook).encode())
    failed.unlink(missing_ok=True)
    return Executed(notebook, final, record)


def _execute(
    path: Path,
    injected: dict[str, Any],
    profile: str | None,
    failed: Path,
    more: dict[str, str],
    progress: bool,
) -> Any:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    notebook = split(path.read_text(encoding="utf-8"))
    partial = failed.with_name(f".{path.stem}.{os.getpid()}.part.ipynb")
    variables = more | {
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
    report = CellProgress(path.stem, len(notebook.cells), progress)

    def stopped(where: str, reason: str) -> NotebookFailed:
        kept = ""
        if partial.is_file():
            os.replace(partial, failed)
            inside = failed.is_relative_to(paths.root())
            kept = f"; the executed part is in {paths.relative(failed) if inside else failed}"
        reason = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", reason).split())
        report.close("stopped")
        return NotebookFailed(f"{path.name} stopped in {where}: {reason}{kept}", reason)

    try:
        # The kernel inherits the environment of this process when it starts.
        with report, environment(variables):
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
