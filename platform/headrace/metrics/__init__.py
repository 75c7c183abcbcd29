"""Define every number once, ask for it, and get the SQL that counts it.

A number is a metric of a family: ``definitions/*.yml`` here, ``metrics/*.yml`` in a project. The API, the page,
Metabase's cards and Grafana's panels take their SQL from this room, so that they cannot disagree::

    catalogue = load(settings)
    question = ask(catalogue, "events", start="2026-05-01", end="2026-05-07", window="day", dimensions=["channel"],
                   filters={"event_type": ["purchase"]}, compare="previous_period")
    compiled = compile_question(question, catalogue)
    client.query(compiled.sql, parameters=compiled.parameters)

    panel = statement(catalogue, "events", "grafana", window="minute", dimensions=["channel"], variables=["event_type"])
    panel.sql, panel.tags

``question.key`` is equal for equal questions, ``question.days`` are the days that it touches, ``compiled.columns``
describe the answer. ``QuestionError`` says what is wrong with a question: field, value and the nearest right choice.
"""

from headrace.metrics.catalogue import Catalogue, Schemas, load
from headrace.metrics.compile import Column, Statement, compile_question
from headrace.metrics.definitions import Dimension, Family, Metric, Model
from headrace.metrics.dialects import Rendered, Tag, expanded, statement
from headrace.metrics.errors import DefinitionError, QuestionError
from headrace.metrics.question import Question, ask
from headrace.metrics.windows import WINDOWS

__all__ = [
    "WINDOWS",
    "Catalogue",
    "Column",
    "DefinitionError",
    "Dimension",
    "Family",
    "Metric",
    "Model",
    "Question",
    "QuestionError",
    "Rendered",
    "Schemas",
    "Statement",
    "Tag",
    "ask",
    "compile_question",
    "expanded",
    "load",
    "statement",
]
