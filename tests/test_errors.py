"""Errors say what, where and what to do, in any process; many problems make one table."""

from __future__ import annotations

import pickle

from autoseg.errors import GridError, Problem, excluded_cases, problem_table


def test_an_error_names_case_file_cause_and_remedy_and_no_folder():
    error = GridError("the spacing is 0", case="p1", file="/home/anna/secret/p1.nii.gz", remedy="Export it again")
    assert str(error) == "case p1, p1.nii.gz: the spacing is 0. Export it again"


def test_errors_cross_processes_whole():
    error = pickle.loads(pickle.dumps(GridError("torn", case="p1", file="p1.nii.gz", remedy="Mend it")))
    assert (type(error), error.message, error.case, error.file, error.remedy) == (GridError, "torn", "p1", "p1.nii.gz", "Mend it")


def test_the_table_has_errors_first_and_shared_warnings_once():
    rows = [Problem("warning", "GridError", "pixdim holds", "Nothing need be done", f"p{n}", f"p{n}.nii.gz") for n in range(5)]
    rows += [Problem("error", "GridError", "torn", "Mend it", "p7"), Problem("error", "GridError", "torn", "Mend it", "p8")]
    table = problem_table(rows).splitlines()
    assert table[:2] == ["error    p7: GridError: torn. Mend it", "error    p8: GridError: torn. Mend it"]
    assert table[2:] == ["warning  5 cases (p0, p1, p2, ...): GridError: pixdim holds. Nothing need be done"]
    assert excluded_cases(rows) == {"p7", "p8"}
