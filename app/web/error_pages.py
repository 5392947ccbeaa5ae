"""Errors as people see them: a page, or a notice in the page that asked."""

from __future__ import annotations

from flask import Response, g, render_template, request

from app.http import problems
from app.http.problems import Problem
from app.web.api import ApiError


def to_problem(error: Exception) -> Problem:
    """The problem for `error`; a call that the API refused is shown as the API explains it."""
    if isinstance(error, ApiError):
        return Problem(error.status, error.code, error.detail, errors=error.fields)
    return problems.to_problem(error)


def shown(problem: Problem) -> Response:
    """A page for a person, or a notice in the page that asked."""
    within = bool(request.headers.get("HX-Request"))
    template = "notice.html" if within else "error.html"
    # Before the guard has run, nobody is known to be signed in.
    g.setdefault("person", None)
    response = Response(render_template(template, problem=problem), problem.status, mimetype="text/html")
    if within:
        response.headers["HX-Retarget"] = "#notices"
        response.headers["HX-Reswap"] = "afterbegin"
    return response
